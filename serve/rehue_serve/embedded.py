"""A Triton server on this machine, from the wheel nvidia-pytriton.

Only the server and its Python backend are used, with this project's model repository; pytriton's
Python API is not.
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
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from rehue_serve import processes
from rehue_serve.ports import claim_free_ports

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # POSIX shared memory on Linux
START_TIMEOUT = 120.0  # seconds; models load and warm up within a few


class TritonFailed(RuntimeError):
    """Triton did not start; the message contains its own reason."""


class EmbeddedTriton:
    """One Triton process on free ports of the loopback interface.

    As a context manager it starts the process and stops it at the end.
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
        """Choose ports; `start` starts the process.

        Args:
            threads: of each model; 0: one per core.
            config_name: the models' ``configs/NAME.pbtxt``.
            models: load only these; empty: all models of the repository.
            arguments: appended to tritonserver's command line.
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
    def _region_prefix(self) -> str:
        """Prefix of its backends' shared memory files."""
        return f"triton-{self._directory.name}-"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # interrupted too: Triton must not be left running
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

    def start(self) -> None:
        """Start Triton and wait until its models are loaded.

        Raises:
            TritonFailed: with Triton's own reason.
        """
        wheel = _find_wheel()
        if not self.model_repository.is_dir():
            raise TritonFailed(
                f"There is no model repository at {self.model_repository}. Set "
                "REHUE_MODEL_REPOSITORY to one, such as the model_repository/ of the sources."
            )
        self._directory = Path(tempfile.mkdtemp(prefix="rehue-triton-"))
        command = self._build_command(wheel, _copy_backends(wheel, self._directory))
        self._log = self._directory / "triton.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                processes.bind_to_parent(command),
                env=_build_environment(wheel, self.threads),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal reaches the whole process group, but Triton has to
                # outlive the requests that still need it.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            if self._process.poll() is not None:
                raise TritonFailed(extract_reason(self._log.read_text(errors="replace")))
            if time.monotonic() > deadline:
                raise TritonFailed(f"Triton was not ready after {START_TIMEOUT:.0f} s")
            time.sleep(0.1)

    def stop(self, timeout: float = 15.0) -> None:
        """Stop the process after its requests in flight; kill it after the timeout (seconds)."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        # A Triton that was killed leaves the processes of its backends behind, in its session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None
        for region in SHARED_MEMORY.glob(f"{self._region_prefix}*"):
            region.unlink(missing_ok=True)  # left by a Triton that was killed
        shutil.rmtree(self._directory, ignore_errors=True)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http_port}/v2/health/ready", timeout=2
            ) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def _build_command(self, wheel: Path, backends: Path) -> list[str]:
        load = [f"--load-model={name}" for name in self.models]
        return [
            str(wheel / "bin" / "tritonserver"),
            f"--model-repository={self.model_repository}",
            f"--model-config-name={self.config_name}",
            f"--model-control-mode={'explicit' if load else 'none'}",
            *load,
            f"--backend-directory={backends}",
            *(
                f"--backend-config={name},shm-region-prefix-name={self._region_prefix}"
                for name in ("python", "onnxruntime")
            ),
            *(
                f"--{protocol}-{option}"
                for protocol, port in (("grpc", self.grpc_port), ("http", self.http_port))
                for option in (f"port={port}", "address=127.0.0.1")
            ),
            f"--metrics-port={self.metrics_port}",
            "--metrics-address=127.0.0.1",
            "--exit-timeout-secs=10",
            "--disable-auto-complete-config",
            "--log-verbose=0",
            *self.arguments,
        ]


def execute_triton(arguments: Sequence[str], threads: int = 0) -> NoReturn:
    """Replace this process by the wheel's tritonserver: the one process of a container.

    Args:
        arguments: of tritonserver; the backends' folder is added.
        threads: of each model; 0: one per core.
    """
    wheel = _find_wheel()
    backends = _copy_backends(wheel, Path(tempfile.mkdtemp(prefix="rehue-triton-")))
    command = [str(wheel / "bin" / "tritonserver"), f"--backend-directory={backends}", *arguments]
    os.execve(command[0], command, _build_environment(wheel, threads))  # noqa: S606  # no shell


def _build_environment(wheel: Path, threads: int) -> dict[str, str]:
    libraries = [
        wheel.parents[1] / "nvidia_pytriton.libs",
        sysconfig.get_config_var("LIBDIR"),  # libpython, for the backend's stub
        *filter(None, [os.environ.get("LD_LIBRARY_PATH")]),
    ]
    return os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        # The stub's interpreter uses the packages of the first python3 on the PATH, and
        # ignores PYTHONPATH.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "REHUE_TRITON_THREADS": str(threads),
    }


def _find_wheel() -> Path:
    """Return the folder ``tritonserver`` of the installed wheel."""
    package = importlib.util.find_spec("pytriton")
    if package is None or package.origin is None:
        raise TritonFailed(
            "The wheel nvidia-pytriton is not installed: pip install '.[serve]' in the "
            "repository, or set REHUE_TRITON_URLS to a running Triton."
        )
    return Path(package.origin).parent / "tritonserver"


def _copy_backends(wheel: Path, directory: Path) -> Path:
    """Make a backend directory: the wheel's Python backend with its stub, and ours for ONNX."""
    stub = f"{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    backends = directory / "backends"
    # Copies, because Triton refuses links to libraries outside of its directory.
    shutil.copytree(wheel / "backends" / "python", backends / "python")
    shutil.copy(wheel / "python_backend_stubs" / stub, backends / "python")
    shutil.copytree(Path(__file__).parent / "onnxruntime_backend", backends / "onnxruntime")
    return backends


def extract_reason(log: str) -> str:
    """Extract why a start failed from Triton's log: its table of models or its errors."""
    lines = log.splitlines()
    errors = [line for line in lines if re.match(r"E\d{4} ", line)]
    rows = [line for line in lines if line.startswith("|") and "UNAVAILABLE" in line]
    reasons = rows or errors or lines[-10:] or ["its log is empty"]
    return "Triton did not start:\n" + "\n".join(reasons[:20])
