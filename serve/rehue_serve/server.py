"""Everything on this machine in one foreground process: Triton, Ray Serve, HAProxy.

This process adopts every process that Ray leaves behind (Linux calls it a
subreaper), because HAProxy in particular outlives its parent. So at the end it
can stop all of them, by their own pids, and no port stays taken.
"""

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType

import psutil

from rehue_serve import logs, tracing
from rehue_serve.embedded import EmbeddedTriton, TritonFailed, free_ports
from rehue_serve.settings import Settings

log = logging.getLogger(__name__)

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PATIENCE = 5.0  # seconds between asking a process to end and killing it
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
    logs.start(settings.model_copy(update={"log_file": None}))
    check_ports(settings)
    with contextlib.ExitStack() as stack:
        # In reverse order at the end: Ray finishes its requests while Triton still answers.
        stack.enter_context(_no_process_left())
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


def check_ports(settings: Settings) -> None:
    """Raises StartFailed for a port that somebody else listens on, and says who."""
    for name in ("http_port", "grpc_port", "metrics_port"):
        port = getattr(settings, name)
        # Ray serves the metrics on every interface.
        host = "0.0.0.0" if name == "metrics_port" else settings.host  # noqa: S104
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                variable = f"REHUE_{name.upper()}"
                raise StartFailed(
                    f"{host}:{port} cannot be used ({error.strerror}{_holder(port)}). "
                    f"Stop that process or choose another port: {variable}={port + 1} rehue serve"
                ) from None


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr
            listens = here and here.port == port and connection.status == psutil.CONN_LISTEN
            if listens and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f"; {name}, pid {connection.pid}, has it"
    return ""


@contextlib.contextmanager
def _embedded(settings: Settings) -> Iterator[EmbeddedTriton]:
    triton = EmbeddedTriton(
        settings.model_repository,
        threads=settings.triton_threads,
        arguments=tracing.triton_arguments(settings),
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
    os.environ.update(ray_environment(settings, directory))
    # Imported here: Ray reads its environment when it is imported.
    import ray
    from ray import serve as ray_serve
    from ray.serve.config import HTTPOptions

    from rehue_serve import app

    logs.take_rays()
    others = set(_descendants())
    lines = contextlib.ExitStack()
    try:
        if settings.log_file is None:
            gathered = lines.enter_context(logs.gathered(directory))
            settings = settings.model_copy(update={"log_file": gathered})
        _start_ray(settings, directory, others)
        logs.take_rays()
        _catch_signals()  # again, since Ray puts its own handlers in place
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        ray_serve.start(
            http_options=HTTPOptions(host=settings.host, port=settings.http_port),
            grpc_options=app.grpc_options(settings),
        )
        try:
            ray_serve.run(app.application(settings), name=app.NAME, route_prefix="/")
        except RuntimeError as error:
            raise StartFailed(f"Ray Serve could not run the application: {error}") from None
        _wait_for_http(settings)
        yield
    finally:
        with contextlib.suppress(Exception):  # a Ray that never came up cannot be told to stop
            # First the replicas, which finish what is under way; a shutdown alone ends HAProxy
            # too, and with it the connections that wait for answers.
            ray_serve.delete(app.NAME)
            ray_serve.shutdown()
        ray.shutdown()
        _end(_descendants(), spare=others)
        lines.close()
        shutil.rmtree(directory, ignore_errors=True)


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
                configure_logging=False,  # logs.start did
                _temp_dir=str(directory / f"ray{attempt}"),
                _metrics_export_port=settings.metrics_port,
            )
        except Exception as error:  # noqa: BLE001  # Ray raises just that after its 30 s
            ray.shutdown()
            _end(_descendants(), spare=others)
            _say(f"Ray did not start: {str(error).splitlines()[0]}")
        else:
            return
    raise StartFailed(
        f"Ray did not start in {RAY_STARTS} tries. Is the machine busy? "
        "A start takes two cores some 15 s."
    )


def ray_environment(settings: Settings, directory: Path) -> dict[str, str]:
    """What Ray reads from the environment, for this machine's own instance."""
    haproxy = directory / "haproxy"
    stats, metrics = free_ports(2)
    return {
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
        "RAY_worker_niceness": "0",  # replicas are the service, not background work
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _wait_for_http(settings: Settings, timeout: float = 60.0) -> None:
    """HAProxy learns of the replicas a moment after they run."""
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    deadline = time.monotonic() + timeout
    import httpx

    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://{host}:{settings.http_port}/healthz").text == "ok":
                return
        time.sleep(0.1)
    raise StartFailed(f"Ray Serve did not answer on port {settings.http_port}.")


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


@contextlib.contextmanager
def _no_process_left() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    try:
        yield
    finally:
        _end(_descendants())
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _end(processes: list[psutil.Process], *, spare: Collection[psutil.Process] = ()) -> None:
    """Asks, waits, then kills."""
    processes = [process for process in processes if process not in spare]
    for act in ("terminate", "kill"):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(process, act)()
        _, processes = psutil.wait_procs(processes, timeout=PATIENCE)
