"""A real Triton on this machine, from the wheel of nvidia-pytriton.

Only the server and its Python backend are used, on this project's own model
repository; pytriton's own way of serving is not.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rehue_serve import processes
from rehue_serve.ports import claim_free_ports

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where POSIX shared memory lies on Linux
START_TIMEOUT = 120.0  # seconds; models load and warm up within a few


class TritonFailed(RuntimeError):
    """Triton did not start; the message holds its own reason."""


class EmbeddedTriton:
    """One Triton process on free ports of the loopback interface.

    Use it as a context manager: the process is up inside and gone after.
    """

    def __init__(
        self,
        model_repository: Path,
        *,
        threads: int = 0,
        config_name: str = "cpu",
        models: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
    ) -> None:
        """``models``: load these only; all of the repository when empty.

        ``arguments``: more of them, for tritonserver.
        """
        self.model_repository = model_repository
        self.threads = threads
        self.config_name = config_name
        self.models = models
        self.arguments = arguments
        self.grpc_port, self.http_port, self.metrics_port = claim_free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The gRPC address."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("Triton was not started")
        return self._process.pid

    @property
    def _regions(self) -> str:
        """How the names of its backends' shared memory begin."""
        return f"triton-{self._directory.name}-"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, alive: Callable[[], None] = lambda: None) -> None:
        """Starts Triton and waits until its models are loaded.

        Args:
            alive: called while waiting; may raise to give up.

        Raises:
            TritonFailed: with the reason that Triton gives.
        """
        wheel = _wheel()
        self._directory = Path(tempfile.mkdtemp(prefix="rehue-triton-"))
        self._log = self._directory / "triton.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                processes.bind_to_parent(self._command(wheel, _backends(wheel, self._directory))),
                env=self._environment(wheel),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal goes to the whole group; Triton is stopped after
                # the requests that still need it, by us.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            alive()
            if self._process.poll() is not None:
                raise TritonFailed(reason(self._log.read_text(errors="replace")))
            if time.monotonic() > deadline:
                raise TritonFailed(f"Triton was not ready after {START_TIMEOUT:.0f} s")
            time.sleep(0.1)

    def stop(self, timeout: float = 15.0) -> None:
        """Lets requests under way finish, then stops the process."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        # A Triton that was killed leaves the processes of its backends behind; they are in
        # the session that it led.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None
        for region in SHARED_MEMORY.glob(f"{self._regions}*"):
            region.unlink(missing_ok=True)  # a Triton that was killed leaves it
        shutil.rmtree(self._directory, ignore_errors=True)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http_port}/v2/health/ready", timeout=2
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _command(self, wheel: Path, backends: Path) -> list[str]:
        chosen = [f"--load-model={name}" for name in self.models]
        return [
            str(wheel / "bin" / "tritonserver"),
            f"--model-repository={self.model_repository}",
            f"--model-config-name={self.config_name}",
            f"--model-control-mode={'explicit' if chosen else 'none'}",
            *chosen,
            f"--backend-directory={backends}",
            *(
                f"--backend-config={name},shm-region-prefix-name={self._regions}"
                for name in ("python", "onnxruntime")
            ),
            *(
                f"--{kind}-{what}"
                for kind, port in (("grpc", self.grpc_port), ("http", self.http_port))
                for what in (f"port={port}", "address=127.0.0.1")
            ),
            f"--metrics-port={self.metrics_port}",
            "--metrics-address=127.0.0.1",
            "--exit-timeout-secs=10",
            "--disable-auto-complete-config",
            "--log-verbose=0",
            *self.arguments,
        ]

    def _environment(self, wheel: Path) -> dict[str, str]:
        libraries = [
            wheel.parents[1] / "nvidia_pytriton.libs",
            sysconfig.get_config_var("LIBDIR"),  # libpython, for the backend's stub
            *filter(None, [os.environ.get("LD_LIBRARY_PATH")]),
        ]
        return os.environ | {
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            # The interpreter inside the stub takes its packages from the environment of the
            # first python3 on the PATH, and does not look at PYTHONPATH.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "REHUE_TRITON_THREADS": str(self.threads),
        }


def _wheel() -> Path:
    """The folder ``tritonserver`` in the installed wheel."""
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        raise TritonFailed(
            "The wheel nvidia-pytriton is not installed: pip install 'rehue[serve]', "
            "or set REHUE_TRITON_URLS to a Triton that runs already."
        )
    return Path(found.origin).parent / "tritonserver"


def _backends(wheel: Path, directory: Path) -> Path:
    """A backend directory: the wheel's Python backend with its stub, and ours for ONNX."""
    stub = f"{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    backends = directory / "backends"
    # Copies, because Triton refuses libraries that links lead out of its directory.
    shutil.copytree(wheel / "backends" / "python", backends / "python")
    shutil.copy(wheel / "python_backend_stubs" / stub, backends / "python")
    shutil.copytree(Path(__file__).parent / "onnxruntime_backend", backends / "onnxruntime")
    return backends


def reason(log: str) -> str:
    """What Triton's log says of a start that failed: its errors and its table of models."""
    lines = log.splitlines()
    errors = [line for line in lines if re.match(r"E\d{4} ", line)]
    rows = [line for line in lines if line.startswith("|") and "UNAVAILABLE" in line]
    told = rows or errors or lines[-10:] or ["it said nothing"]
    return "Triton did not start:\n" + "\n".join(told[:20])
