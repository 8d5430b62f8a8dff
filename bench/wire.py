"""Minimal HTTP/1.1 response parsing: a slow load generator would measure itself."""

from typing import NamedTuple

BODILESS = (b"204", b"304")  # neither a body nor a length (RFC 9110, section 6.4.1)


class Answer(NamedTuple):
    status: int
    body: bytes
    closes: bool  # the server closes the connection after it
    rest: bytes  # what was read beyond it


def next_answer(unread: bytes) -> Answer | None:
    """The first answer in `unread`, or None if more has to be read."""
    end = unread.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, start = unread[:end].lower(), end + 4
    closes = b"connection: close" in head
    if head[9:12] in BODILESS:
        return Answer(int(head[9:12]), b"", closes, unread[start:])
    at = head.find(b"content-length:")
    if at < 0:
        return chunked_answer(unread, head, start, closes=closes)
    stop = start + int(head[at + 15 :].split(b"\r\n", 1)[0])
    if len(unread) < stop:
        return None
    return Answer(int(head[9:12]), unread[start:stop], closes, unread[stop:])


def chunked_answer(unread: bytes, head: bytes, at: int, *, closes: bool) -> Answer | None:
    body = b""
    while (line := unread.find(b"\r\n", at)) >= 0:
        size = int(unread[at:line], 16)
        at = line + 2 + size + 2
        if len(unread) < at:
            return None
        body += unread[line + 2 : line + 2 + size]
        if size == 0:
            return Answer(int(head[9:12]), body, closes, unread[at:])
    return None
