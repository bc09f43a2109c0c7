"""The load test: users from `users.py` under a shape of load from `shapes.toml`, and its report.

    make loadtest                             # on `make serve`; report in results/loadtest
    make loadtest SHAPE=spike ARGS="--processes 2"
    python -m locust -f loadtest/locustfile.py               # with locust's web page
    python -m locust -f loadtest/locustfile.py GrpcUser --headless --shape steps

Users are closed loops: who waits for an answer sends nothing meanwhile, so a slow
server meets fewer requests. For latency at a given rate use `openloop.py`.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators
# (locust's events have no types)

import math
import os
import time
import tomllib
from pathlib import Path
from typing import Any, ClassVar

from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

import report
from ledger import Ledger, Outcome
from samples import mixed
from users import TIMEOUT, GrpcUser, HttpUser, Note, StreamUser

__all__ = ["GrpcUser", "HttpUser", "Shape", "StreamUser"]  # what locust finds here

SHAPES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("shapes.toml").read_text()
)
FREE = "free"  # users, rate and time as locust's own options or its web page say
LEVELS = {  # over the shape's own
    "p99_ms": "most ms at the 99th percentile",
    "failed": "most requests that failed, 0 to 1",
    "refused": "most requests refused as OVERLOADED, 0 to 1",
    "rate": "least photographs a second in the best stage",
    "drift": "most that the last stage's median may be of the first's",
}

ledger = Ledger()


class Shape(LoadTestShape):
    """The stages of `shapes.toml`, in their order."""

    use_common_options = True
    users: ClassVar[dict[str, int]] = {}  # by their kind, when a stage last had any

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        end, now = 0.0, self.get_run_time()
        for seconds, users, rate in stages(self.runner.environment.parsed_options):
            end += seconds
            if now < end:
                Shape.users = dict(self.runner.target_user_classes_count)
                return users, rate
        # Nobody new, but what is under way counts: above all where the server hangs.
        return (0, 100.0) if self.runner.user_count and now < end + 2 * TIMEOUT else None


def stages(options: Any) -> list[tuple[float, int, float]]:
    """Seconds, users, and users started a second, of each stage of the chosen shape."""
    if options.shape == FREE:
        seconds = float(options.run_time or "inf")
        return [(seconds, options.num_users or 1, options.spawn_rate or 1)]
    scale = options.users_scale
    return [
        (seconds * options.time_scale, max(1, round(users * scale)), max(1.0, rate * scale))
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
    parser.add_argument("--time-scale", type=float, default=1.0, help="multiplies its seconds")
    parser.add_argument("--grpc", default="127.0.0.1:9000", help="gRPC address, host:port")
    parser.add_argument("--model", default="", help="name of the model; empty: the default")
    parser.add_argument("--api-key", default=None, is_secret=True, help="where the server asks")
    parser.add_argument("--bad-share", type=float, default=0.05, help="bad inputs, 0 to 1")
    parser.add_argument("--out", default="results/loadtest", help="folder of the report")
    parser.set_defaults(stop_timeout=TIMEOUT + 10)  # who stops waits for the last answer
    for name, meaning in LEVELS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=None, help=meaning)


@events.init.add_listener
def _prepare(environment: Environment, runner: Any, **_: Any) -> None:
    mixed()  # before the clock runs
    environment.events.request.add_listener(_note)
    environment.events.user_error.add_listener(_broken)
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


def _broken(**_: Any) -> None:
    """A user met what it has no word for: no success, whatever it was."""
    ledger.add(Outcome.FAILED, 0, {})


def _send(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001 (locust's names)
    data["ledger"] = ledger.drain()


def _receive(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001
    ledger.merge(data["ledger"])


def _start(**_: Any) -> None:
    ledger.seconds.clear()
    ledger.began = time.time()


def _stop(environment: Environment, **_: Any) -> None:
    ledger.ended = time.time()
    assert environment.runner is not None
    # For locust's report, which would show the shares of no users at all.
    environment.runner.final_user_classes_count = Shape.users
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
    out = Path(options.out)
    own = getattr(options, "html_file", None)
    met = report.write(
        out,
        title=f"{options.shape}, {environment.host or HttpUser.host}, gRPC {options.grpc}",
        points=[
            report.Point(users, end - at, ledger.between(at, end))
            for users, at, end in report.windows(stages(options), ledger.began, ledger.ended)
        ],
        whole=ledger.between(0, math.inf),
        levels=levels(options),
        locust=os.path.relpath(own, out) if own else None,
    )
    environment.process_exit_code = 0 if met else 1
