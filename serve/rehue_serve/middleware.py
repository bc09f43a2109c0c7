"""Requests as clients vary them: HEAD, and a slash at the end of the path."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestVariants:
    """Answers HEAD as GET without the body, and paths that end with a slash as those without."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        path = scope["path"].rstrip("/") or "/"
        scope = {**scope, "method": "GET" if is_head else scope["method"], "path": path}

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, send_without_body if is_head else send)
