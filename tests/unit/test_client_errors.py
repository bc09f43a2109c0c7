"""The errors that the SDK raises for a server's refusals and for answers that are not Rehue's."""

import grpc
import pytest
from client_calls import Colorize, find_free_port

from rehue_client import (
    DeadlineExceeded,
    ImageTooLarge,
    NotServing,
    Overloaded,
    ProtocolError,
    RehueError,
    Retries,
    Unauthenticated,
    Unavailable,
    errors,
)
from rehue_serve.testing.scripted import (
    STATUSES,
    ForeignError,
    Refusal,
    ScriptedServer,
)


@pytest.mark.parametrize("code", STATUSES)
def test_each_reason_has_its_error(
    colorize: Colorize, url: str, scripted: ScriptedServer, code: str
) -> None:
    scripted.script = [Refusal(code)]
    with pytest.raises(RehueError) as caught:
        colorize(url, retries=Retries(attempts=1))
    assert type(caught.value) is errors.ERRORS_BY_REASON[code]
    assert str(caught.value) == "as the script says"
    assert caught.value.request_id == "r-1"


@pytest.mark.parametrize("code", sorted(set(STATUSES) - {"OVERLOADED", "UNAVAILABLE"}))
def test_final_errors_are_not_retried(
    colorize: Colorize, url: str, scripted: ScriptedServer, code: str
) -> None:
    scripted.script = [Refusal(code)]
    with pytest.raises(RehueError):
        colorize(url)
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ForeignError(401, grpc.StatusCode.PERMISSION_DENIED), Unauthenticated),
        (ForeignError(429, grpc.StatusCode.RESOURCE_EXHAUSTED), Overloaded),
        (ForeignError(408, grpc.StatusCode.ABORTED), Unavailable),
        (ForeignError(500, grpc.StatusCode.UNKNOWN), Unavailable),
        (ForeignError(404, grpc.StatusCode.NOT_FOUND), NotServing),
        (ForeignError(504, grpc.StatusCode.DEADLINE_EXCEEDED), DeadlineExceeded),
        (ForeignError(418, grpc.StatusCode.DATA_LOSS), ProtocolError),
    ],
    ids=lambda value: str(getattr(value, "http", "")),
)
def test_status_alone_has_its_error(
    colorize: Colorize,
    url: str,
    scripted: ScriptedServer,
    answer: ForeignError,
    error: type[RehueError],
) -> None:
    scripted.script = [answer]
    with pytest.raises(RehueError) as caught:
        colorize(url, retries=Retries(attempts=1))
    assert type(caught.value) is error


def test_message_over_the_servers_limit_is_too_large(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    text = "SERVER: Received message larger than max (9 vs. 4)"
    scripted.script = [ForeignError(413, grpc.StatusCode.RESOURCE_EXHAUSTED, text)]
    with pytest.raises(ImageTooLarge):
        colorize(url)
    assert len(scripted.requests) == 1


def test_foreign_server_is_a_protocol_error(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    scripted.script = [ForeignError(405, grpc.StatusCode.UNIMPLEMENTED, "what?")]
    with pytest.raises(ProtocolError):
        colorize(url)
    assert len(scripted.requests) == 1


def test_answer_that_is_not_an_image_is_a_protocol_error(
    colorize: Colorize, scripted: ScriptedServer
) -> None:
    scripted.script = [ForeignError(200, grpc.StatusCode.OK, "<html>")]
    with pytest.raises(ProtocolError, match="text/plain instead of an image"):
        colorize(scripted.http_url)


def test_refused_connection_is_unavailable(colorize: Colorize, protocol: str) -> None:
    quick = Retries(attempts=2, first=0.01, longest=0.01)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        colorize(f"{protocol}://127.0.0.1:{find_free_port()}", retries=quick)
