"""Pictures and versions as HTTP answers, sent within the limits of `rehue_serve.uploads`."""

import logging

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from rehue_serve.candidates import Candidates
from rehue_serve.errors import RehueError
from rehue_serve.pipeline import Colorized
from rehue_serve.stages import STAGES
from rehue_serve.uploads import Uploads

log = logging.getLogger(__name__)

PART = 64 * 1024  # bytes; uvicorn waits until the client has read all but about one part


def build_headers(answer: Colorized | Candidates) -> dict[str, str]:
    """Build the headers of an answer that name its model and timings."""
    timings = ", ".join(f"{stage};dur={answer.timings[stage]:.2f}" for stage in STAGES)
    return {"X-Rehue-Model": answer.model, "Server-Timing": timings}


class LimitedResponse(Response):
    """An answer in parts, so that a caller who does not read is noticed and its memory freed."""

    def __init__(
        self, content: bytes, media_type: str, headers: dict[str, str], uploads: Uploads
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        started = False
        try:
            async with self._uploads.send(len(self.body)) as answer:
                started = True
                start = {"type": "http.response.start", "status": self.status_code}
                await send({**start, "headers": self.raw_headers})
                for at in range(0, len(self.body), PART):
                    part = bytes(self.body[at : at + PART])
                    more = at + PART < len(self.body)
                    await send({"type": "http.response.body", "body": part, "more_body": more})
                    answer.record(len(part))
        except RehueError as error:
            if not started:
                raise
            # The server closes the connection of an answer that is not complete.
            log.info("an answer was ended: %s", error)


class PictureResponse(LimitedResponse):
    """A picture with its model, pages, timings and what was not kept as headers."""

    def __init__(self, picture: Colorized, uploads: Uploads) -> None:
        pages = {"X-Rehue-Pages": f"{picture.pages}/{picture.frames}"}
        headers = build_headers(picture) | pages
        if picture.dropped:
            headers["X-Rehue-Dropped"] = ", ".join(picture.dropped)
        super().__init__(picture.data, picture.media_type, headers, uploads)
