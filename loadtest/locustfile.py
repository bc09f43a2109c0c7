"""The load test: users from `users.py` under a shape of load from `shapes.toml`, and its report.

    make loadtest                             # on `make serve`; report in results/loadtest
    make loadtest SHAPE=spike ARGS="--processes 2"
    python -m locust -f loadtest/locustfile.py               # with locust's web page
    python -m locust -f loadtest/locustfile.py GrpcUser --headless --shape steps

Users are closed loops: a user that waits for an answer sends nothing, so a slow server
gets fewer requests. To measure latency at a given rate, use `openloop.py`.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators
# (locust's events have no types)

import math
import os
import time
import tomllib
from pathlib import Path
from typing import Any, ClassVar

import grpc.experimental.gevent
from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest.ledger import Ledger, Outcome
from loadtest.report import StageResult, compute_windows, write_report
from loadtest.samples import create_mix
from loadtest.users import TIMEOUT, GrpcUser, HttpUser, Result, StreamUser

__all__ = ["GrpcUser", "HttpUser", "Shape", "StreamUser"]  # for locust

SHAPES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("shapes.toml").read_text()
)
FREE = "free"  # users, rate and time from locust's own options or its web page
LEVELS = {  # options that replace the shape's service levels
    "p99_ms": "limit of the 99th percentile, ms",
    "failed": "largest share of failed requests, 0 to 1",
    "refused": "largest share refused as OVERLOADED, 0 to 1",
    "rate": "least photographs per second in the best stage",
    "drift": "largest ratio of the last stage's median latency to the first's",
}

ledger = Ledger()
create_mix()  # before workers are forked or report that they are ready: it takes seconds


class Shape(LoadTestShape):
    """The stages of the chosen shape, one after another."""

    use_common_options = True
    users: ClassVar[dict[str, int]] = {}  # by class, in the last stage

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        end, now = 0.0, self.get_run_time()
        for seconds, users, rate in list_stages(self.runner.environment.parsed_options):
            end += seconds
            if now < end:
                Shape.users = dict(self.runner.target_user_classes_count)
                return users, rate
        # No new users, but requests in flight count, above all if the server hangs.
        return (0, 100.0) if self.runner.user_count and now < end + 2 * TIMEOUT else None


def list_stages(options: Any) -> list[tuple[float, int, float]]:
    """Return seconds, users, and users started per second, of each stage of the shape."""
    if options.shape == FREE:
        seconds = float(options.run_time or "inf")
        return [(seconds, options.num_users or 1, options.spawn_rate or 1)]
    scale = options.users_scale
    return [
        (seconds * options.time_scale, max(1, round(users * scale)), max(1.0, rate * scale))
        for seconds, users, rate in SHAPES[options.shape]["stages"]
    ]


def choose_levels(options: Any) -> dict[str, float]:
    """Return the service levels: the shape's own, replaced by those of the options."""
    chosen = dict(SHAPES.get(options.shape, {}).get("levels", {"failed": 0.0}))
    given = {name: getattr(options, name) for name in LEVELS}
    # The web page sends an empty field as an empty string.
    return chosen | {name: float(value) for name, value in given.items() if value not in (None, "")}


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--shape", choices=[*SHAPES, FREE], default="ramp", help="of the load")
    parser.add_argument("--users-scale", type=float, default=1.0, help="multiplies a shape's users")
    parser.add_argument("--time-scale", type=float, default=1.0, help="multiplies its seconds")
    parser.add_argument("--grpc", default="127.0.0.1:9000", help="gRPC address, host:port")
    parser.add_argument("--model", default="", help="name of the model; empty: the default")
    parser.add_argument(
        "--api-key", default=None, is_secret=True, help="if the server requires one"
    )
    parser.add_argument("--bad-share", type=float, default=0.05, help="share of bad inputs, 0 to 1")
    parser.add_argument("--out", default="results/loadtest", help="folder of the report")
    parser.set_defaults(stop_timeout=TIMEOUT + 10)  # a user that stops waits for its last answer
    for name, meaning in LEVELS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=None, help=meaning)


@events.init.add_listener
def _prepare_worker(environment: Environment, runner: Any, **_: Any) -> None:
    # In each worker process, after the fork and before the first channel.
    grpc.experimental.gevent.init_gevent()
    environment.events.request.add_listener(_record_request)
    environment.events.user_error.add_listener(_record_user_error)
    environment.events.report_to_master.add_listener(_send_ledger)
    environment.events.worker_report.add_listener(_receive_ledger)
    environment.events.test_start.add_listener(_start_run)
    environment.events.test_stop.add_listener(_stop_run)
    environment.events.quitting.add_listener(_quit)
    if isinstance(runner, MasterRunner):
        runner.register_message("ledger", lambda msg, **_: ledger.merge(msg.data))


def _record_request(response_time: float, context: dict[str, Any], **_: Any) -> None:
    result = context.get("result") or Result()
    ledger.add(result.outcome, response_time, result.timings)


def _record_user_error(**_: Any) -> None:
    """Count an unexpected exception in a user as a failed request."""
    ledger.add(Outcome.FAILED, 0, {})


def _send_ledger(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001 (locust's names)
    data["ledger"] = ledger.drain()


def _receive_ledger(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001
    ledger.merge(data["ledger"])


def _start_run(**_: Any) -> None:
    ledger.seconds.clear()
    ledger.started = time.time()


def _stop_run(environment: Environment, **_: Any) -> None:
    ledger.stopped = time.time()
    assert environment.runner is not None
    # For locust's report, which would otherwise show no users.
    environment.runner.final_user_classes_count = Shape.users
    if isinstance(environment.runner, WorkerRunner):
        # Locust sends its last report only after the master's run has stopped.
        environment.runner.send_message("ledger", ledger.drain())  # type: ignore[arg-type]
    elif environment.web_ui:
        _write_report(environment)


def _quit(environment: Environment, **_: Any) -> None:
    # Without the web page, the workers' last seconds arrive after the master's run has stopped.
    if not environment.web_ui and not isinstance(environment.runner, WorkerRunner):
        _write_report(environment)


def _write_report(environment: Environment) -> None:
    options: Any = environment.parsed_options
    out = Path(options.out)
    locust_report = getattr(options, "html_file", None)
    met = write_report(
        out,
        title=f"{options.shape}, {environment.host or HttpUser.host}, gRPC {options.grpc}",
        stages=[
            StageResult(users, end - start, ledger.sum_between(start, end))
            for users, start, end in compute_windows(
                list_stages(options), ledger.started, ledger.stopped
            )
        ],
        total=ledger.sum_between(0, math.inf),
        levels=choose_levels(options),
        locust=os.path.relpath(locust_report, out) if locust_report else None,
    )
    environment.process_exit_code = 0 if met else 1
