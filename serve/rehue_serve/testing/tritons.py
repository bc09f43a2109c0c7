"""A real Triton whose network sleeps instead of computing, as a GPU does for the CPU."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from rehue_serve.embedded import EmbeddedTriton

MODEL = "rehue"
BATCH_SECONDS = 0.02
CONFIG = """
name: "{model}"
backend: "python"
max_batch_size: 8
input [{{ name: "lightness" data_type: TYPE_UINT8 dims: [ 1, {input_side}, {input_side} ] }}]
output [{{ name: "ab" data_type: TYPE_FP16 dims: [ 2, {output_side}, {output_side} ] }}]
parameters [
  {{ key: "lightness_scale" value: {{ string_value: "0.39215686274509803" }} }},
  {{ key: "ab_scale" value: {{ string_value: "1.0" }} }},
  {{ key: "directory" value: {{ string_value: "{directory}" }} }}
]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""


class SleepingTriton(EmbeddedTriton):
    """A Triton whose network takes a set time for a batch of up to eight, and no CPU.

    Its model is named ``rehue`` and can be loaded and unloaded.
    """

    def __init__(
        self,
        directory: Path,
        *,
        batch_seconds: float = BATCH_SECONDS,
        input_side: int = 64,
        batcher: str | None = "",
    ) -> None:
        """Write the model repository; the context manager starts Triton.

        Args:
            directory: for the model and its state.
            batch_seconds: how long each batch takes.
            input_side: height and width of the network's input; its output has half of it.
            batcher: Triton's ``dynamic_batching``; None: each call runs by itself.
        """
        self._seconds = directory / "seconds"
        self._failing = directory / "failing"  # calls fail while this file exists
        self._failed = directory / "failed"  # one byte for each failed call
        version = directory / "models" / MODEL / "1"
        version.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("sleeping_model.py"), version / "model.py")
        config = CONFIG.format(
            model=MODEL, directory=directory, input_side=input_side, output_side=input_side // 2
        )
        if batcher is not None:
            config += f"dynamic_batching {{ {batcher} }}\n"
        (version.parent / "config.pbtxt").write_text(config)
        self._failed.touch()
        self.set_batch_seconds(batch_seconds)
        super().__init__(directory / "models", models=(MODEL,))

    def set_batch_seconds(self, seconds: float = BATCH_SECONDS) -> None:
        """Set how long every batch takes from now on."""
        new = self._seconds.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._seconds)

    def start_failing(self) -> None:
        """Answer every call with an error from now on."""
        self._failing.touch()

    def stop_failing(self) -> None:
        self._failing.unlink()

    def unload_model(self) -> None:
        with self._open_stub() as stub:
            stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name=MODEL))

    def load_model(self) -> None:
        with self._open_stub() as stub:
            stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=MODEL))

    def count_photographs(self) -> int:
        """Return how many photographs this process has answered."""
        with self._open_stub() as stub:
            answer = stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=MODEL))
        return sum(statistics.inference_count for statistics in answer.model_stats)

    def count_failed_calls(self) -> int:
        """Return how many calls were answered with errors since this object exists."""
        return self._failed.stat().st_size

    @contextlib.contextmanager
    def _open_stub(self) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
        with grpc.insecure_channel(self.url) as channel:
            yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@contextlib.contextmanager
def run_sleeping_triton(
    batch_seconds: float, *, input_side: int = 256, batcher: str | None = ""
) -> Iterator[SleepingTriton]:
    """Run a `SleepingTriton` in a temporary directory, of the committed models' input size."""
    with (
        tempfile.TemporaryDirectory(prefix="rehue-") as directory,
        SleepingTriton(
            Path(directory), batch_seconds=batch_seconds, input_side=input_side, batcher=batcher
        ) as triton,
    ):
        yield triton
