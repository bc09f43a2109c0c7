"""Locust users: photographs over HTTP, over gRPC and over gRPC streams, without retries."""

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

from loadtest.ledger import Outcome
from loadtest.samples import Sample, create_mix
from rehue_client import Client, RehueError, Retries
from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc

TIMEOUT = 60.0  # seconds for a photograph, or for a stream of them
STREAM_LENGTH = 8  # photographs
STREAM_WINDOW = 4  # photographs of a stream in flight
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

generator = random.Random()


@dataclass
class Result:
    """How a request ended; the context of locust's event for it."""

    outcome: str = Outcome.FAILED
    timings: Mapping[str, float] = field(default_factory=dict)


def classify(sample: Sample, reason: str) -> str:
    """Return the outcome for the server's error reason, which is empty for a picture."""
    if reason == sample.reason:
        return Outcome.DENIED if reason else Outcome.COLORIZED
    return Outcome.REFUSED if reason == "OVERLOADED" else Outcome.FAILED


def describe_failure(result: Result, reason: str) -> str:
    """Return what locust shows as a failure; empty for a success."""
    if result.outcome in (Outcome.COLORIZED, Outcome.DENIED):
        return ""
    return reason or "colorized a bad input"


class PhotographUser:
    """The common part of all users."""

    environment: Environment
    wait_time = between(0.25, 0.75)

    @property
    def options(self) -> Any:
        """The options of the command line or of the web page."""
        return self.environment.parsed_options

    def choose_sample(self) -> Sample:
        return create_mix().choose(generator, self.options.bad_share)

    def report(
        self, kind: str, sample: Sample, start: float, result: Result, *, size: int, error: str
    ) -> None:
        """Report a gRPC request to locust; an empty error is a success."""
        self.environment.events.request.fire(
            request_type=kind,
            name=sample.name,
            response_time=(time.perf_counter() - start) * 1000,
            response_length=size,
            exception=RuntimeError(error) if error else None,
            context={"result": result},
        )


class HttpUser(PhotographUser, FastHttpUser):
    """Sends photographs over HTTP, one at a time."""

    host = "http://127.0.0.1:8000"
    weight = 3
    network_timeout = connection_timeout = TIMEOUT

    @task
    def colorize(self) -> None:
        sample, result = self.choose_sample(), Result()
        options = self.options
        headers = {"Content-Type": "application/octet-stream"}
        if options.api_key:
            headers["Authorization"] = f"Bearer {options.api_key}"
        with self.client.post(
            f"/v1/colorize?model={options.model}",
            name=sample.name,
            data=sample.data,  # type: ignore[arg-type] # it accepts bytes
            headers=headers,
            context={"result": result},
            catch_response=True,
        ) as response:
            reason = read_http_reason(response)
            result.outcome = classify(sample, reason)
            if error := describe_failure(result, reason):
                response.failure(error)
            else:
                header = response.headers.get("Server-Timing", "") if not reason else ""
                result.timings = parse_server_timing(header)
                response.success()


def read_http_reason(response: Any) -> str:
    """Return the server's error reason; empty for a picture; else a description."""
    if response.status_code == 200:
        kind = response.headers.get("Content-Type", "nothing")
        return "" if kind.startswith("image/") and response.content else f"answered with {kind}"
    try:
        kind = str(json.loads(response.content)["type"])
    except (ValueError, LookupError, TypeError):
        # Ray Serve itself refuses requests when all replicas are full, in its own format.
        return "OVERLOADED" if response.status_code == 429 else f"HTTP {response.status_code}"
    return kind.rpartition(":")[2].replace("-", "_").upper()


def parse_server_timing(header: str) -> dict[str, float]:
    """Return the milliseconds by stage of ``decode;dur=1.2, infer;dur=30``."""
    return {stage: float(ms) for stage, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}


class GrpcUser(PhotographUser, User):
    """Sends photographs over gRPC with the SDK, one at a time."""

    weight = 3

    def on_start(self) -> None:
        options = self.options
        # No retries: they would hide errors of the server.
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
        sample, result, size, reason = self.choose_sample(), Result(), 0, ""
        start = time.perf_counter()
        try:
            picture = self.client.colorize(sample.data, model=self.options.model or None)
            result.timings, size = vars(picture.timings), len(picture.data)
        except RehueError as error:
            reason = error.reason or str(error)
        result.outcome = classify(sample, reason)
        error_text = describe_failure(result, reason)
        self.report("grpc", sample, start, result, size=size, error=error_text)


class StreamUser(PhotographUser, User):
    """Sends photographs over a gRPC stream, several in flight."""

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
        """Send a stream; a photograph's latency runs from when it is sent to its answer."""
        pending: dict[str, tuple[Sample, float]] = {}
        window = gevent.lock.Semaphore(STREAM_WINDOW)
        model = self.options.model

        def generate_requests() -> Iterator[rehue_pb2.ColorizeRequest]:
            for number in range(STREAM_LENGTH):
                window.acquire()
                sample = self.choose_sample()
                pending[str(number)] = sample, time.perf_counter()
                yield rehue_pb2.ColorizeRequest(id=str(number), image=sample.data, model=model)

        try:
            for answer in self.stub.ColorizeStream(
                generate_requests(), timeout=TIMEOUT, metadata=self.metadata
            ):
                window.release()
                self.report_answer(answer, *pending.pop(answer.id))
            reason = "the stream ended without an answer"
        except grpc.RpcError as error:
            # Ray Serve itself refuses requests when all replicas are full.
            full = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            reason = "OVERLOADED" if full else error.code().name
        unanswered = list(pending.values())
        for _ in range(STREAM_LENGTH):  # so that a waiting request generator ends
            window.release()
        for sample, start in unanswered:
            result = Result(classify(sample, reason))
            self.report("stream", sample, start, result, size=0, error=reason)

    def report_answer(
        self, answer: rehue_pb2.ColorizeResponse, sample: Sample, start: float
    ) -> None:
        reason = read_stream_reason(answer)
        timings = {stage.name: value for stage, value in answer.timings.ListFields()}
        result = Result(classify(sample, reason), timings)
        error = describe_failure(result, reason)
        self.report("stream", sample, start, result, size=len(answer.image), error=error)


def read_stream_reason(answer: rehue_pb2.ColorizeResponse) -> str:
    """Return the error reason of one answer of a stream; empty for a picture."""
    if not answer.HasField("error"):
        return "" if answer.image else "an answer without a picture"
    info = error_details_pb2.ErrorInfo()
    for detail in answer.error.details:
        detail.Unpack(info)
    return str(info.reason or answer.error.message)
