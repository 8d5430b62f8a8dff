"""Minimal ASGI application: reads the body and sends it back. The baseline for frameworks."""

HEADERS = [(b"content-type", b"application/json")]


async def application(scope, receive, send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # tells uvicorn that there is no lifespan
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    await send(
        {"type": "http.response.start", "status": 202, "headers": [*HEADERS, (b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})
