"""Locust users: photographs over HTTP, over gRPC and over gRPC streams, one try each."""

# mypy: allow-untyped-calls, allow-untyped-decorators
# (locust's events and generated gRPC stubs have no types)

import json
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gevent.lock  # type: ignore[import-untyped]
import grpc
import grpc.experimental.gevent
from google.rpc import error_details_pb2
from locust import FastHttpUser, User, between, task
from locust.env import Environment

from ledger import Outcome
from rehue_client import Client, RehueError, Retries
from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc
from samples import Sample, mixed

grpc.experimental.gevent.init_gevent()  # before the first channel, after locust's patches

TIMEOUT = 60.0  # seconds for one photograph, or for one stream of them
WINDOW = 4  # photographs of one stream under way at once
OF_A_STREAM = 8
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

chance = random.Random()


@dataclass
class Note:
    """How a request ended; travels with locust's event for it."""

    outcome: str = Outcome.FAILED
    timings: Mapping[str, float] = field(default_factory=dict)


def outcome(sample: Sample, reason: str) -> str:
    """From the server's reason for refusing; empty where it answered with a picture."""
    if reason == sample.reason:
        return Outcome.DENIED if reason else Outcome.COLORIZED
    return Outcome.REFUSED if reason == "OVERLOADED" else Outcome.FAILED


class PhotographUser:
    """What all users share."""

    environment: Environment
    wait_time = between(0.25, 0.75)

    @property
    def options(self) -> Any:
        """The command line's, or the web page's."""
        return self.environment.parsed_options

    def sample(self) -> Sample:
        return mixed().one(chance, self.options.bad_share)

    def report(
        self, kind: str, sample: Sample, began: float, note: Note, *, size: int, error: str
    ) -> None:
        """Tells locust of one gRPC request; an empty error is a success."""
        self.environment.events.request.fire(
            request_type=kind,
            name=sample.name,
            response_time=(time.perf_counter() - began) * 1000,
            response_length=size,
            exception=RuntimeError(error) if error else None,
            context={"note": note},
        )


class HttpUser(PhotographUser, FastHttpUser):
    """Photographs over HTTP, one at a time."""

    host = "http://127.0.0.1:8000"
    weight = 3
    network_timeout = connection_timeout = TIMEOUT

    @task
    def colorize(self) -> None:
        sample, note = self.sample(), Note()
        options = self.options
        headers = {"Content-Type": "application/octet-stream"}
        if options.api_key:
            headers["Authorization"] = f"Bearer {options.api_key}"
        with self.client.post(
            f"/v1/colorize?model={options.model}",
            name=sample.name,
            data=sample.data,  # type: ignore[arg-type] # bytes do well
            headers=headers,
            context={"note": note},
            catch_response=True,
        ) as response:
            reason = http_reason(response)
            note.outcome = outcome(sample, reason)
            if note.outcome in (Outcome.COLORIZED, Outcome.DENIED):
                timing = response.headers.get("Server-Timing", "") if not reason else ""
                note.timings = server_timing(timing)
                response.success()
            else:
                response.failure(reason or "coloured what it should refuse")


def http_reason(response: Any) -> str:
    """The server's reason for refusing; empty for a picture; else what came instead."""
    if response.status_code == 200:
        kind = response.headers.get("Content-Type", "nothing")
        return "" if kind.startswith("image/") and response.content else f"answered with {kind}"
    try:
        kind = str(json.loads(response.content)["type"])
    except (ValueError, LookupError, TypeError):
        # Ray refuses by itself when every replica is full, in its own words.
        return "OVERLOADED" if response.status_code == 429 else f"HTTP {response.status_code}"
    return kind.rpartition(":")[2].replace("-", "_").upper()


def server_timing(header: str) -> dict[str, float]:
    """The milliseconds of ``decode;dur=1.2, infer;dur=30``."""
    return {stage: float(ms) for stage, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}


class GrpcUser(PhotographUser, User):
    """Photographs over gRPC, one at a time, through the SDK."""

    weight = 3

    def on_start(self) -> None:
        options = self.options
        # One try: a load test shows what the SDK's retries would hide.
        self.client = Client(
            f"grpc://{options.grpc}",
            api_key=options.api_key,
            timeout=TIMEOUT,
            retries=Retries(attempts=1),
        )

    def on_stop(self) -> None:
        self.client.close()

    @task
    def colorize(self) -> None:
        sample, note, size, reason = self.sample(), Note(), 0, ""
        began = time.perf_counter()
        try:
            picture = self.client.colorize(sample.data, model=self.options.model or None)
            note.timings, size = vars(picture.timings), len(picture.data)
        except RehueError as error:
            reason = error.reason or str(error)
        note.outcome = outcome(sample, reason)
        self.report("grpc", sample, began, note, size=size, error=error_of(note, reason))


class StreamUser(PhotographUser, User):
    """Photographs over one gRPC stream, some under way at once."""

    weight = 1

    def on_start(self) -> None:
        options = self.options
        self.channel = grpc.insecure_channel(
            options.grpc, [("grpc.use_local_subchannel_pool", 1), *UNLIMITED]
        )
        self.stub = rehue_pb2_grpc.ColorizerStub(self.channel)
        self.metadata = (
            [("authorization", f"Bearer {options.api_key}")] if options.api_key else None
        )

    def on_stop(self) -> None:
        self.channel.close()

    @task
    def colorize(self) -> None:
        """Each photograph's time runs from when it was sent to when its answer came."""
        waiting: dict[str, tuple[Sample, float]] = {}
        window = gevent.lock.Semaphore(WINDOW)
        model = self.options.model

        def requests() -> Iterator[rehue_pb2.ColorizeRequest]:
            for number in range(OF_A_STREAM):
                window.acquire()
                sample = self.sample()
                waiting[str(number)] = sample, time.perf_counter()
                yield rehue_pb2.ColorizeRequest(id=str(number), image=sample.data, model=model)

        try:
            for answer in self.stub.ColorizeStream(
                requests(), timeout=TIMEOUT, metadata=self.metadata
            ):
                window.release()
                self.answered(answer, *waiting.pop(answer.id))
            lost = "the stream ended without an answer"
        except grpc.RpcError as error:
            # Ray refuses by itself when every replica is full.
            full = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            lost = "OVERLOADED" if full else error.code().name
        unanswered = list(waiting.values())
        for _ in range(OF_A_STREAM):  # lets the sending side end, if it still waits
            window.release()
        for sample, began in unanswered:
            note = Note(outcome(sample, lost))
            self.report("stream", sample, began, note, size=0, error=lost)

    def answered(self, answer: rehue_pb2.ColorizeResponse, sample: Sample, began: float) -> None:
        reason = stream_reason(answer)
        timings = {stage.name: value for stage, value in answer.timings.ListFields()}
        note = Note(outcome(sample, reason), timings)
        error = error_of(note, reason)
        self.report("stream", sample, began, note, size=len(answer.image), error=error)


def stream_reason(answer: rehue_pb2.ColorizeResponse) -> str:
    """The reason of an item's own error; empty for a picture."""
    if not answer.HasField("error"):
        return "" if answer.image else "an answer without a picture"
    info = error_details_pb2.ErrorInfo()
    for detail in answer.error.details:
        detail.Unpack(info)
    return str(info.reason or answer.error.message)


def error_of(note: Note, reason: str) -> str:
    """What locust counts as a failure; empty for a success."""
    if note.outcome in (Outcome.COLORIZED, Outcome.DENIED):
        return ""
    return reason or "coloured what it should refuse"
