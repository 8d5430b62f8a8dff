"""What the benchmarks say rests on these: points of a distribution, verdicts, and answers read off the wire."""

import pytest

from bench.figures import Figure, quantile
from bench.wire import next_answer


def test_a_quantile_is_a_value_that_was_measured():
    values = [float(n) for n in range(1, 101)]

    assert [quantile(values, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert quantile([7.0], 0.99) == 7


@pytest.mark.parametrize(("figure", "verdict"), [
    (Figure("rate", 3000, "/s", 3000), "met"),
    (Figure("rate", 2700, "/s", 3000), "missed by 10%"),
    (Figure("p99", 6, "ms", 5, at_most=True), "missed by 20%"),
    (Figure("p99", 60, "ms", 5, at_most=True), "missed: 12 × as much"),
    (Figure("lag", 0, "", 0, at_most=True), "met"),
    (Figure("lag", 3, "", 0, at_most=True), "missed by 3"),
    (Figure("memory", 90, "MiB"), ""),
])  # fmt: skip
def test_a_verdict_has_the_distance_to_the_target(figure, verdict):
    assert figure.verdict == verdict


def test_an_answer_is_read_once_it_is_whole():
    whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"

    assert all(next_answer(whole[:n]) is None for n in range(len(whole)))
    assert next_answer(whole + b"more") == (202, b"{}", False, b"more")


def test_a_chunked_answer_is_put_together():
    whole = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )

    assert all(next_answer(whole[:n]) is None for n in range(len(whole)))
    assert next_answer(whole) == (200, b"abcde", True, b"")


def test_an_answer_without_content_ends_with_its_head():
    whole = b"HTTP/1.1 204 No Content\r\nServer: test\r\n\r\n"

    assert all(next_answer(whole[:n]) is None for n in range(len(whole)))
    assert next_answer(whole + b"more") == (204, b"", False, b"more")
