"""Minimal ASGI application: answers 202 and does nothing. The lowest latency that the server and the machine allow."""

ANSWER = b'{"status":"queued"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


async def application(scope, receive, send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # tells uvicorn that there is no lifespan
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
