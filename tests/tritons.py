"""Tritons for the tests of faults: real servers whose network sleeps, and a wire to cut."""

import contextlib
import select
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from rehue_serve.embedded import EmbeddedTriton

MODEL = "rehue"

CONFIG = """
name: "rehue"
backend: "python"
max_batch_size: 8
input [{{ name: "lightness" data_type: TYPE_UINT8 dims: [ 1, 64, 64 ] }}]
output [{{ name: "ab" data_type: TYPE_FP16 dims: [ 2, 32, 32 ] }}]
parameters [
  {{ key: "lightness_scale" value: {{ string_value: "0.39215686274509803" }} }},
  {{ key: "ab_scale" value: {{ string_value: "1.0" }} }},
  {{ key: "directory" value: {{ string_value: "{directory}" }} }}
]
dynamic_batching {{ }}
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""


class SleepingTriton(EmbeddedTriton):
    """A Triton whose network takes a set time for a batch of up to eight, and no CPU.

    Its models are loaded and unloaded on request.
    """

    def __init__(self, directory: Path) -> None:
        self._seconds = directory / "seconds"
        self.broken = directory / "broken"  # answers errors while this file is there
        self._erred = directory / "erred"  # a byte for each
        version = directory / "models" / MODEL / "1"
        version.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("sleeper.py"), version / "model.py")
        (version.parent / "config.pbtxt").write_text(CONFIG.format(directory=directory))
        self._erred.touch()
        self.pace(0.02)
        super().__init__(directory / "models", models=(MODEL,))

    def pace(self, seconds: float) -> None:
        """Every batch takes so long from now on."""
        new = self._seconds.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._seconds)

    def unload(self) -> None:
        with self._stub() as stub:
            stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name=MODEL))

    def load(self) -> None:
        with self._stub() as stub:
            stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=MODEL))

    def answered(self) -> int:
        """Photographs since its start."""
        with self._stub() as stub:
            answer = stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=MODEL))
        return sum(one.inference_count for one in answer.model_stats)

    def erred(self) -> int:
        """Calls that it answered with errors, ever."""
        return self._erred.stat().st_size

    @contextlib.contextmanager
    def _stub(self) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
        with grpc.insecure_channel(self.url) as channel:
            yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


class Wire:
    """A TCP proxy on the loopback interface that can be cut.

    While it is cut nothing passes and nothing is refused, as when packets are
    lost; mended, it has forgotten the connections of before.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._whole = threading.Event()
        self._whole.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        pairs, self._pairs = self._pairs, []
        for one in (one for pair in pairs for one in pair):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._whole.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.mend()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._whole.wait()
        with near, contextlib.suppress(OSError):
            far = socket.create_connection(("127.0.0.1", self._to))
            self._pairs.append((near, far))
            with far:
                self._pass(near, far)

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        while True:
            ready, _, _ = select.select([near, far], [], [])
            self._whole.wait()
            for one in ready:
                data = one.recv(1 << 16)
                if not data:
                    return
                other[one].sendall(data)
