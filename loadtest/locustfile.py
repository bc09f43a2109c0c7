"""Locust users for HTTP, gRPC and gRPC streams, and shapes of load from `shapes.toml`.

    make loadtest                             # on `make serve`; report in results/loadtest
    make loadtest SHAPE=spike ARGS="--processes 2"
    python -m locust -f loadtest/locustfile.py               # with locust's web page
    python -m locust -f loadtest/locustfile.py GrpcUser --headless --shape steps

Users are closed loops: who waits for an answer sends nothing meanwhile, so a slow
server meets fewer requests. For latency at a given rate use `openloop.py`.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators
# (locust's events and generated gRPC stubs have no types)

import json
import math
import random
import re
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import gevent.lock  # type: ignore[import-untyped]
import grpc
import grpc.experimental.gevent
from locust import FastHttpUser, LoadTestShape, User, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

import report
from ledger import Ledger, Outcome
from rehue_client import Client, RehueError, Retries
from rehue_client.errors import BY_REASON
from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc
from samples import Sample, mixed

grpc.experimental.gevent.init_gevent()  # before the first channel, after locust's patches

SHAPES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("shapes.toml").read_text()
)
FREE = "free"  # users, rate and time as locust's own options or its web page say
TIMEOUT = 60.0  # seconds for one photograph
WINDOW = 4  # photographs of one stream under way at once
OF_A_STREAM = 8
LEVELS = ("p99_ms", "failed", "refused", "rate")

ledger = Ledger()
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
            lost = str(error.code().name)
        unanswered = list(waiting.values())
        for _ in range(OF_A_STREAM):  # lets the sending side end, if it still waits
            window.release()
        for sample, began in unanswered:
            self.report("stream", sample, began, Note(), size=0, error=lost)

    def answered(self, answer: rehue_pb2.ColorizeResponse, sample: Sample, began: float) -> None:
        reason = stream_reason(answer)
        timings = {stage.name: value for stage, value in answer.timings.ListFields()}
        note = Note(outcome(sample, reason), timings)
        error = error_of(note, reason)
        self.report("stream", sample, began, note, size=len(answer.image), error=error)


UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def stream_reason(answer: rehue_pb2.ColorizeResponse) -> str:
    """The reason of an item's own error; empty for a picture."""
    if not answer.HasField("error"):
        return "" if answer.image else "an answer without a picture"
    details = b"".join(detail.value for detail in answer.error.details)
    found = [reason for reason in BY_REASON if reason and reason.encode() in details]
    return found[0] if found else answer.error.message


def error_of(note: Note, reason: str) -> str:
    """What locust counts as a failure; empty for a success."""
    if note.outcome in (Outcome.COLORIZED, Outcome.DENIED):
        return ""
    return reason or "coloured what it should refuse"


class Shape(LoadTestShape):
    """The stages of `shapes.toml`, in their order."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        end, now = 0.0, self.get_run_time()
        for seconds, users, rate in stages(self.runner.environment.parsed_options):
            end += seconds
            if now < end:
                return users, rate
        return None


def stages(options: Any) -> list[tuple[float, int, float]]:
    """Seconds, users, and users started a second, of each stage of the chosen shape."""
    if options.shape == FREE:
        seconds = float(options.run_time or "inf")
        return [(seconds, options.num_users or 1, options.spawn_rate or 1)]
    scale = options.users_scale
    return [
        (float(seconds), max(1, round(users * scale)), max(1.0, rate * scale))
        for seconds, users, rate in SHAPES[options.shape]["stages"]
    ]


def levels(options: Any) -> dict[str, float]:
    """The service levels: the shape's own, and those of the command line over them."""
    chosen = dict(SHAPES.get(options.shape, {}).get("levels", {"failed": 0.0}))
    given = {name: getattr(options, name) for name in LEVELS}
    # The web page sends what was left empty as an empty text.
    return chosen | {name: float(value) for name, value in given.items() if value not in (None, "")}


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--shape", choices=[*SHAPES, FREE], default="ramp", help="of the load")
    parser.add_argument("--users-scale", type=float, default=1.0, help="multiplies a shape's users")
    parser.add_argument("--grpc", default="127.0.0.1:9000", help="gRPC address, host:port")
    parser.add_argument("--model", default="", help="name of the model; empty: the default")
    parser.add_argument("--api-key", default=None, is_secret=True, help="where the server asks")
    parser.add_argument("--bad-share", type=float, default=0.05, help="bad inputs, 0 to 1")
    parser.add_argument("--out", default="results/loadtest", help="folder of the report")
    for name in LEVELS:
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=float, default=None, help="service level, over the shape's")


@events.init.add_listener
def _prepare(environment: Environment, runner: Any, **_: Any) -> None:
    mixed()  # before the clock runs
    environment.events.request.add_listener(_note)
    environment.events.report_to_master.add_listener(_send)
    environment.events.worker_report.add_listener(_receive)
    environment.events.test_start.add_listener(_start)
    environment.events.test_stop.add_listener(_stop)
    environment.events.quitting.add_listener(_quit)
    if isinstance(runner, MasterRunner):
        runner.register_message("ledger", lambda msg, **_: ledger.merge(msg.data))


def _note(response_time: float, context: dict[str, Any], **_: Any) -> None:
    note = context.get("note") or Note()
    ledger.add(note.outcome, response_time, note.timings)


def _send(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001 (locust's names)
    data["ledger"] = ledger.drain()


def _receive(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001
    ledger.merge(data["ledger"])


def _start(**_: Any) -> None:
    ledger.seconds.clear()
    ledger.began = time.time()


def _stop(environment: Environment, **_: Any) -> None:
    ledger.ended = time.time()
    if isinstance(environment.runner, WorkerRunner):
        # Locust's own last report comes only after the master's test has stopped.
        environment.runner.send_message("ledger", ledger.drain())  # type: ignore[arg-type]
    elif environment.web_ui:
        _report(environment)


def _quit(environment: Environment, **_: Any) -> None:
    # Without the web page, the workers' last seconds come after the master's test has stopped.
    if not environment.web_ui and not isinstance(environment.runner, WorkerRunner):
        _report(environment)


def _report(environment: Environment) -> None:
    options: Any = environment.parsed_options
    missed = report.write(
        Path(options.out),
        title=f"{options.shape}, {environment.host or HttpUser.host}, gRPC {options.grpc}",
        points=[
            report.Point(users, end - at, ledger.between(at, end))
            for users, at, end in report.windows(stages(options), ledger.began, ledger.ended)
        ],
        whole=ledger.between(0, math.inf),
        levels=levels(options),
    )
    environment.process_exit_code = 1 if missed else 0
