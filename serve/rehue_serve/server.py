"""``rehue serve``: Triton, Ray Serve and HAProxy on this machine, started and stopped in order.

This process adopts every process that Ray leaves behind (Linux' child subreaper), because
HAProxy outlives its parent. So it can stop all of them by their pids at the end, and no port
stays taken.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rehue_serve import haproxy, local_ray, logs, ports, processes, tracing
from rehue_serve.embedded import EmbeddedTriton, TritonFailed
from rehue_serve.settings import Settings

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

log = logging.getLogger(__name__)

PORTS = ("http_port", "grpc_port", "metrics_port")
SIGNALS = (signal.SIGINT, signal.SIGTERM)

# In a checkout the printed curl command works as it is.
SAMPLE = Path(__file__).parents[2] / "tests" / "photos" / "skimage_chelsea.jpg"


class StartFailed(RuntimeError):
    """The server did not start; the message says why and what to do."""


class _Stop(BaseException):
    """Ctrl-C or SIGTERM. Not an Exception, so that no handler on the way swallows it."""


def serve(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM, then stop everything that was started.

    Raises:
        StartFailed: with the reason.
    """
    # This process' own lines; without a log file it also prints the Colorizers'.
    logs.configure_logging(settings.model_copy(update={"log_file": None}))
    with _claim_ports(settings), contextlib.ExitStack() as stack:
        # Left in reverse order: Ray finishes its requests while Triton still answers.
        stack.enter_context(processes.end_descendants_at_exit())
        stack.enter_context(_raise_on_signals())
        with contextlib.suppress(_Stop):
            triton = None
            if not settings.triton_urls:
                log.info("starting Triton")
                triton = stack.enter_context(_start_triton(settings))
                settings = settings.model_copy(update={"triton_urls": (triton.url,)})
            log.info("starting Ray Serve")
            stack.enter_context(_run_application(settings))
            _print_greeting(settings, triton)
            _keep_alive(triton)
        _ignore_signals()
        log.info("stopping: photographs in flight are finished first")
    log.info("stopped")


@contextlib.contextmanager
def _claim_ports(settings: Settings) -> Iterator[None]:
    """Claim the ports, so that one of two servers that start at the same time is refused.

    Raises:
        StartFailed: another process listens on a port, or will; the message names it.
    """
    with contextlib.ExitStack() as stack:
        for name in PORTS:
            host, port = _get_host(settings, name), getattr(settings, name)
            claim = ports.claim_name(f"serves {host}:{port}")
            if claim is None:
                reason = "another rehue serve that is starting or stopping"
                raise _port_conflict(settings, name, reason)
            stack.enter_context(claim)
        for name in PORTS:
            if reason := ports.describe_conflict(
                _get_host(settings, name), getattr(settings, name)
            ):
                raise _port_conflict(settings, name, reason)
        yield


def _get_host(settings: Settings, name: str) -> str:
    # Ray serves the metrics on every interface.
    return "0.0.0.0" if name == "metrics_port" else settings.host  # noqa: S104


def _port_conflict(settings: Settings, name: str, reason: str) -> StartFailed:
    port = getattr(settings, name)
    return StartFailed(
        f"{_get_host(settings, name)}:{port} cannot be used ({reason}). "
        f"Stop that process or choose another port: REHUE_{name.upper()}={port + 1} rehue serve"
    )


@contextlib.contextmanager
def _start_triton(settings: Settings) -> Iterator[EmbeddedTriton]:
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
def _run_application(settings: Settings) -> Iterator[None]:
    """Start Ray and run the application on it."""
    # It holds Unix sockets, so that its path has to be short.
    directory = Path(tempfile.mkdtemp(prefix="rehue-"))
    try:
        os.environ.update(local_ray.build_ray_environment(settings, directory))
    except local_ray.RayFailed as error:
        raise StartFailed(str(error)) from None
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
        try:
            local_ray.start_ray(settings, directory, others)
        except local_ray.RayFailed as error:
            raise StartFailed(str(error)) from None
        logs.redirect_ray_logs()
        _install_signal_handlers()  # again, because Ray installs its own
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
            _drain(handle, directory / "haproxy", settings.grace)
    finally:
        ray.shutdown()
        processes.end_processes(processes.list_descendants(), spare=others)
        lines.close()
        shutil.rmtree(directory, ignore_errors=True)


def _drain(handle: "DeploymentHandle[Any]", haproxy_directory: Path, grace: float) -> None:
    """Refuse new photographs and finish those in flight, before the ports close.

    Ray alone removes the application from HAProxy first, which then answers 404.
    """
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    deadline = time.monotonic() + grace

    async def drain() -> None:  # in throughput mode a handle works only inside an event loop
        await handle.broadcast("drain").results_async(timeout_s=grace)

    with contextlib.suppress(TimeoutError, RayError, RayServeException):
        asyncio.run(drain())
    # HAProxy may still send the last bytes of a response.
    while time.monotonic() < deadline and haproxy.has_open_sessions(haproxy_directory):
        time.sleep(0.05)


def _wait_for_http(settings: Settings, timeout: float = 60.0) -> None:
    """Wait until HAProxy knows the replicas, a moment after they run."""
    import httpx

    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            response = httpx.get(f"http://{host}:{settings.http_port}/healthz")
            if _holds_ports(settings) and response.text == "ok":
                return
        time.sleep(0.1)
    raise StartFailed(f"Ray Serve did not answer on port {settings.http_port}.")


def _holds_ports(settings: Settings) -> bool:
    """Whether this server's HAProxy listens on both ports.

    Raises:
        StartFailed: another process listens on one of them.
    """
    for name in ("http_port", "grpc_port"):
        port = getattr(settings, name)
        listener = ports.find_listener(port)
        # In this order: HAProxy sometimes hands its ports over to a new process.
        if listener not in processes.list_descendants():
            if listener is not None:
                raise _port_conflict(settings, name, ports.describe_conflict(settings.host, port))
            return False
    return True


def _print_greeting(settings: Settings, triton: EmbeddedTriton | None) -> None:
    http = f"http://{settings.host}:{settings.http_port}"
    photo = os.path.relpath(SAMPLE) if SAMPLE.is_file() else "photo.jpg"
    greeting = f"""
Rehue is ready.
  page     {http}/
  HTTP     {http}/v1/colorize      described at {http}/docs
  gRPC     {settings.host}:{settings.grpc_port}
  metrics  http://{settings.host}:{settings.metrics_port}/metrics
  Triton   {", ".join(settings.triton_urls)} ({"embedded" if triton else "yours"})

Try:  curl -fsS --data-binary @{photo} -H 'Content-Type: image/jpeg' \
{http}/v1/colorize -o colour.jpg
Stop: Ctrl-C
"""
    if settings.log_format == "json":
        log.info(greeting.strip())
    else:
        print(greeting, flush=True)


def _keep_alive(triton: EmbeddedTriton | None) -> None:
    """Wait for a signal; restart an embedded Triton that dies, at its address."""
    while True:
        time.sleep(0.5)
        if triton is not None and not triton.alive:
            log.info("Triton ended unexpectedly; starting it again")
            triton.stop()
            triton.start()


def _raise_stop(*_: int | FrameType | None) -> None:
    raise _Stop


def _install_signal_handlers() -> None:
    for number in SIGNALS:
        signal.signal(number, _raise_stop)


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _raise_on_signals() -> Iterator[None]:
    """Raise `_Stop` on Ctrl-C and SIGTERM; restore the former handlers at the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _install_signal_handlers()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
