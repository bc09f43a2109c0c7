"""Everything on this machine: Triton, Ray Serve, HAProxy.

This process adopts every process that Ray leaves behind (Linux calls it a
subreaper), because HAProxy in particular outlives its parent. So at the end it
can stop all of them, by their own pids, and no port stays taken.
"""

import asyncio
import contextlib
import csv
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil

from rehue_serve import logs, ports, processes, tracing
from rehue_serve.embedded import EmbeddedTriton, TritonFailed
from rehue_serve.ports import claim_free_ports
from rehue_serve.settings import Settings

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

log = logging.getLogger(__name__)

PORTS = ("http_port", "grpc_port", "metrics_port")
BACKENDS = ("http-rehue", "grpc-rehue")  # as Ray names them in HAProxy's statistics
REPLICA_PORTS = 100  # of each protocol; one stays unused for a while after its replica
RAY_STARTS = 3  # a busy machine misses Ray's own limit of 30 s now and then
OBJECT_STORE_BYTES = 80 * 2**20  # Ray's least; photographs never pass through it


# In a checkout the line to try works as it is printed.
SAMPLE = Path(__file__).parents[2] / "tests" / "photos" / "skimage_chelsea.jpg"


class StartFailed(RuntimeError):
    """The server did not start; the message says why and what to do."""


class _Stop(BaseException):
    """Ctrl-C or SIGTERM; not an Exception, so that nothing on the way swallows it."""


def serve(settings: Settings) -> None:
    """Serves until Ctrl-C or SIGTERM, then stops all that it started.

    Raises:
        StartFailed: with the reason.
    """
    # This process' own lines; the Colorizers' come to it where no file is set.
    logs.configure_logging(settings.model_copy(update={"log_file": None}))
    with _ports(settings), contextlib.ExitStack() as stack:
        # In reverse order at the end: Ray finishes its requests while Triton still answers.
        stack.enter_context(processes.end_descendants_at_exit())
        stack.enter_context(_signals_stop())
        with contextlib.suppress(_Stop):
            triton = None
            if not settings.triton_urls:
                _say("starting Triton")
                triton = stack.enter_context(_embedded(settings))
                settings = settings.model_copy(update={"triton_urls": (triton.url,)})
            _say("starting Ray Serve")
            stack.enter_context(_ray_serve(settings))
            _greet(settings, triton)
            _watch(triton)
        _ignore_signals()
        _say("stopping: photographs under way are finished first")
    _say("stopped")


@contextlib.contextmanager
def _ports(settings: Settings) -> Iterator[None]:
    """Claims the ports, so that of two servers that start at once one is refused.

    Raises:
        StartFailed: for a port that somebody else listens on, or will; says who.
    """
    with contextlib.ExitStack() as stack:
        for name in PORTS:
            host, port = _host(settings, name), getattr(settings, name)
            one = ports.claim_name(f"serves {host}:{port}")
            if one is None:
                raise _taken(settings, name, "another rehue serve that is starting or stopping")
            stack.enter_context(one)
        _check_ports(settings)
        yield


def _check_ports(settings: Settings) -> None:
    for name in PORTS:
        if why := ports.describe_conflict(_host(settings, name), getattr(settings, name)):
            raise _taken(settings, name, why)


def _host(settings: Settings, name: str) -> str:
    # Ray serves the metrics on every interface.
    return "0.0.0.0" if name == "metrics_port" else settings.host  # noqa: S104


def _taken(settings: Settings, name: str, why: str) -> StartFailed:
    port = getattr(settings, name)
    return StartFailed(
        f"{_host(settings, name)}:{port} cannot be used ({why}). "
        f"Stop that process or choose another port: REHUE_{name.upper()}={port + 1} rehue serve"
    )


@contextlib.contextmanager
def _embedded(settings: Settings) -> Iterator[EmbeddedTriton]:
    triton = EmbeddedTriton(
        settings.model_repository,
        threads=settings.triton_threads,
        arguments=tracing.build_triton_arguments(settings),
    )
    try:
        with triton:
            yield triton
    except TritonFailed as error:
        raise StartFailed(str(error)) from None


@contextlib.contextmanager
def _ray_serve(settings: Settings) -> Iterator[None]:
    """A Ray of this process's own, with the application on it."""
    # Unix sockets in it: the path has to be short.
    directory = Path(tempfile.mkdtemp(prefix="rehue-"))
    os.environ.update(build_ray_environment(settings, directory))
    # Imported here: Ray reads its environment when it is imported.
    import ray
    from ray import serve as ray_serve
    from ray.serve.config import HTTPOptions

    from rehue_serve import app

    logs.redirect_ray_logs()
    others = set(processes.list_descendants())
    lines = contextlib.ExitStack()
    try:
        if settings.log_file is None:
            gathered = lines.enter_context(logs.relay_log_lines(directory))
            settings = settings.model_copy(update={"log_file": gathered})
        _start_ray(settings, directory, others)
        logs.redirect_ray_logs()
        _catch_signals()  # again, since Ray puts its own handlers in place
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        ray_serve.start(
            http_options=HTTPOptions(host=settings.host, port=settings.http_port),
            grpc_options=app.build_grpc_options(settings),
        )
        try:
            handle = ray_serve.run(app.build_application(settings), name=app.NAME, route_prefix="/")
        except RuntimeError as error:
            raise StartFailed(f"Ray Serve could not run the application: {error}") from None
        _wait_for_http(settings)
        try:
            yield
        finally:
            _drain(handle, directory, settings.grace)
    finally:
        ray.shutdown()
        processes.end_processes(processes.list_descendants(), spare=others)
        lines.close()
        shutil.rmtree(directory, ignore_errors=True)


def _drain(handle: "DeploymentHandle[Any]", directory: Path, grace: float) -> None:
    """Refuses what is new, lets what is under way finish, and only then closes the ports.

    Ray's own order is another: it takes the application off HAProxy first, which then
    answers 404, as if the path were wrong.
    """
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    deadline = time.monotonic() + grace

    async def drain() -> None:  # in throughput mode a handle works inside an event loop alone
        await handle.broadcast("drain").results_async(timeout_s=grace)

    with contextlib.suppress(TimeoutError, RayError, RayServeException):
        asyncio.run(drain())
    # Then the last bytes of its answers: HAProxy still sends them.
    while time.monotonic() < deadline and _haproxy_answers(directory):
        time.sleep(0.05)


def _haproxy_answers(directory: Path) -> bool:
    """Whether answers of the application are on their way through HAProxy."""
    # In a folder of the node's; none where HAProxy has ended.
    return any(map(_answers, (directory / "haproxy").glob("*/admin.sock")))


def _answers(admin: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one, contextlib.suppress(OSError):
        one.settimeout(1)
        one.connect(str(admin))
        one.sendall(b"show stat\n")
        table = one.makefile().read().removeprefix("# ")
        rows = csv.DictReader(table.splitlines())
        ours = [row for row in rows if row["svname"] == "BACKEND" and row["pxname"] in BACKENDS]
        return any(int(row["scur"]) for row in ours)
    return False


def _start_ray(settings: Settings, directory: Path, others: Collection[psutil.Process]) -> None:
    import ray

    for attempt in range(RAY_STARTS):
        try:
            ray.init(
                address="local",
                # Ray only counts these; a redeployment runs old and new replicas side by side.
                num_cpus=max(2 * settings.replicas, os.cpu_count() or 1),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,  # logs.configure_logging did
                _temp_dir=str(directory / f"ray{attempt}"),
                _metrics_export_port=settings.metrics_port,
            )
        except Exception as error:  # noqa: BLE001  # Ray raises just that after its 30 s
            ray.shutdown()
            processes.end_processes(processes.list_descendants(), spare=others)
            _say(f"Ray did not start: {str(error).splitlines()[0]}")
        else:
            return
    raise StartFailed(
        f"Ray did not start in {RAY_STARTS} tries. Is the machine busy? "
        "A start takes two cores some 15 s."
    )


def build_ray_environment(settings: Settings, directory: Path) -> dict[str, str]:
    """What Ray reads from the environment, for this machine's own instance."""
    haproxy = directory / "haproxy"
    stats, metrics, fallback, rpc_fallback = claim_free_ports(4)
    # Ray's own are the same for every server of a machine, which then listen there together.
    http, rpc = claim_free_ports(REPLICA_PORTS), claim_free_ports(REPLICA_PORTS)
    return {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(rpc_fallback),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http[-1]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(rpc[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(rpc[-1]),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",  # moves bytes; the cores are for photographs
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(max(1, round(settings.grace))),
        # Ray waits half a minute for load balancers in front to notice; here is none.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "0.5",
        # After 5 s of a busy machine Ray would start HAProxy's manager again, and the new HAProxy
        # find its ports taken by the one before.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_worker_niceness": "0",  # replicas are the service, not background work
        "RAY_USAGE_STATS_ENABLED": "0",
        # Nobody else on this machine may give this Ray work, but for who chose the token. Left to
        # itself it makes one in the home folder, and warns that it did.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
        # jemalloc's arenas and caches, one for each of their 30 threads, would let Ray's own
        # processes grow for hours though they leak nothing.
        "RAY_JEMALLOC_PROFILE": "raylet,gcs_server",
        "RAY_JEMALLOC_CONF": "narenas:1,tcache:false",
    }


def _wait_for_http(settings: Settings, timeout: float = 60.0) -> None:
    """HAProxy learns of the replicas a moment after they run."""
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    deadline = time.monotonic() + timeout
    import httpx

    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"http://{host}:{settings.http_port}/healthz")
            if _is_ours(settings) and answer.text == "ok":
                return
        time.sleep(0.1)
    raise StartFailed(f"Ray Serve did not answer on port {settings.http_port}.")


def _is_ours(settings: Settings) -> bool:
    """Whether HAProxy has both ports; raises StartFailed where another server took one."""
    for name in ("http_port", "grpc_port"):
        holder = ports.find_listener(getattr(settings, name))
        # Looked up after the holder: HAProxy hands its ports on to a new process now and then.
        if holder not in processes.list_descendants():
            if holder is not None:
                raise _taken(
                    settings, name, ports.describe_conflict(settings.host, getattr(settings, name))
                )
            return False
    return True


def _greet(settings: Settings, triton: EmbeddedTriton | None) -> None:
    http = f"http://{settings.host}:{settings.http_port}"
    whose = "embedded" if triton else "yours"
    photo = os.path.relpath(SAMPLE) if SAMPLE.is_file() else "photo.jpg"
    greeting = f"""
Rehue is ready.
  page     {http}/
  HTTP     {http}/v1/colorize      described at {http}/docs
  gRPC     {settings.host}:{settings.grpc_port}
  metrics  http://{settings.host}:{settings.metrics_port}/metrics
  Triton   {", ".join(settings.triton_urls)} ({whose})

Try:  curl -fsS --data-binary @{photo} -H 'Content-Type: image/jpeg' \
{http}/v1/colorize -o colour.jpg
Stop: Ctrl-C
"""
    if settings.log_format == "json":
        log.info(greeting.strip())
    else:
        print(greeting, flush=True)


def _watch(triton: EmbeddedTriton | None) -> None:
    """Until a signal; an embedded Triton that dies is started again where it was."""
    while True:
        time.sleep(0.5)
        if triton is not None and not triton.alive:
            _say("Triton ended unexpectedly; starting it again")
            triton.stop()
            triton.start()


def _say(text: str) -> None:
    log.info(text)


def _stop(*_: int | FrameType | None) -> None:
    raise _Stop


def _catch_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    _catch_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
