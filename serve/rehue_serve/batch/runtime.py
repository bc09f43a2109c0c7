"""Where a job runs: Triton and Ray of this machine, or a cluster's."""

import contextlib
import logging
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rehue_serve import local_ray, logs, processes
from rehue_serve.batch.options import BatchFailed, Options
from rehue_serve.embedded import EmbeddedTriton, TritonFailed
from rehue_serve.ports import claim_free_ports

log = logging.getLogger(__name__)

SIGTERM_EXIT = 143
WATCH_INTERVAL = 0.5  # seconds between two looks at the embedded Triton


@contextlib.contextmanager
def provide_triton(options: Options) -> Iterator[Options]:
    """Start the embedded Triton with the job's model, unless the settings name others.

    Yields:
        Options that name the Tritons to use.

    Raises:
        BatchFailed: there is no such model, or Triton does not start.
    """
    settings = options.settings
    if settings.triton_urls:
        yield options
        return
    if options.address:
        raise BatchFailed("--address needs REHUE_TRITON_URLS: the addresses of the Tritons.")
    model = str(options.parameters["model"])
    if not (settings.model_repository / model / "1").is_dir():
        folders = settings.model_repository.glob("*/1")
        known = ", ".join(sorted(folder.parent.name for folder in folders)) or "none"
        raise BatchFailed(
            f"There is no model {model!r} in {settings.model_repository}; there are: {known}."
        )
    triton = EmbeddedTriton(
        settings.model_repository, threads=settings.triton_threads, models=(model,)
    )
    with _keep_running(triton):
        update = {"triton_urls": (triton.url,), "model": model}
        yield replace(options, settings=settings.model_copy(update=update))


@contextlib.contextmanager
def _keep_running(triton: EmbeddedTriton) -> Iterator[None]:
    """Run a Triton, and start it again at its address whenever it dies."""
    started, ended = threading.Event(), threading.Event()
    problems: list[TritonFailed] = []

    def watch() -> None:
        # Triton is bound to the thread that starts it, so that this thread lives as long.
        try:
            with triton:
                started.set()
                while not ended.wait(WATCH_INTERVAL):
                    if not triton.alive:
                        log.warning("Triton ended unexpectedly; starting it again")
                        triton.stop()
                        triton.start()
        except TritonFailed as error:
            problems.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=watch, name="triton")
    thread.start()
    try:
        started.wait()
        if problems:
            raise BatchFailed(str(problems[0]))
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def provide_ray(options: Options) -> Iterator[None]:
    """Join the cluster at the options' address, or start Ray on this machine.

    Raises:
        BatchFailed: Ray does not start, or there is none at the address.
    """
    with contextlib.ExitStack() as stack:
        if options.address:
            _join_ray(options.address)
        else:
            stack.enter_context(_start_ray(options))
        import ray
        import ray.data  # configures its logger, which is set right below

        stack.callback(ray.shutdown)
        # Ray installs a handler of its own, which aborts.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT))
        logs.redirect_ray_logs()
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger("ray.data").handlers.clear()
        yield


def _join_ray(address: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises many types here
        raise BatchFailed(f"There is no Ray at {address}: {str(error).splitlines()[0]}") from error


@contextlib.contextmanager
def _start_ray(options: Options) -> Iterator[None]:
    # It holds Unix sockets, so that its path has to be short.
    directory = Path(tempfile.mkdtemp(prefix="rehue-"))
    update = {"replicas": options.limits.workers, "metrics_port": claim_free_ports(1)[0]}
    others = set(processes.list_descendants())
    try:
        local_ray.start_ray(options.settings.model_copy(update=update), directory, others)
        yield
    except local_ray.RayFailed as error:
        raise BatchFailed(str(error)) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)
