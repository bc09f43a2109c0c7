"""The web page and the page that describes the API, with their files.

Nothing is loaded from elsewhere: closed networks reach no CDN.
"""

from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

FILES = Path(str(resources.files("rehue_serve"))) / "page"
SWAGGER_UI = Path(str(resources.files("fastapi_offline"))) / "static"


class PageFiles(StaticFiles):
    """Files that browsers check for a newer version each time: a server may have been updated."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def add_pages(app: FastAPI) -> None:
    """Add the routes of both pages and their files."""
    app.mount("/page", PageFiles(directory=FILES))
    app.mount("/docs/static", StaticFiles(directory=SWAGGER_UI))
    for path, file in (("/", "index.html"), ("/docs", "docs.html")):
        app.add_api_route(path, _build_page_route(FILES / file), include_in_schema=False)


def _build_page_route(file: Path) -> Callable[[], Awaitable[Response]]:
    async def get_page() -> Response:
        return FileResponse(file, headers={"Cache-Control": "no-cache"})

    return get_page
