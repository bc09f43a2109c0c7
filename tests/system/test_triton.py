"""The embedded Triton and its client, with servers that are killed and frozen."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import psutil
import pytest
from google.protobuf import text_format
from paths import MODELS
from triton_calls import create_input, get_deadline, infer_random, open_client
from tritonclient.grpc import model_config_pb2

from rehue_serve.embedded import SHARED_MEMORY, EmbeddedTriton, TritonFailed
from rehue_serve.errors import DeadlineExceeded, Unavailable, UnknownModel
from rehue_serve.testing.tritons import SleepingTriton

NAMES = ["rehue", "rehue-free", "seed"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shared_memory", [False, True])
async def test_output_is_the_onnx_files(
    triton: EmbeddedTriton, name: str, shared_memory: bool
) -> None:
    """Photographs that share calls each get the colours that ONNX Runtime computes for it alone."""
    session = onnxruntime.InferenceSession(MODELS / name / "1" / "model.onnx")
    async with open_client(triton.url, shared_memory=shared_memory) as there:
        spec = await there.models.get_spec(name)
        inputs = [create_input(spec, seed) for seed in range(11)]
        answers = await asyncio.gather(
            *(there.infer(spec, found_input, get_deadline(60)) for found_input in inputs)
        )
    for input, (output, version) in zip(inputs, answers, strict=True):
        (expected,) = session.run(["ab"], {"lightness": input[None]})
        assert version == "1"
        assert np.abs(output.astype(float) - expected[0].astype(float)).max() < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_configurations_agree(name: str) -> None:
    """The CPU's and the GPU's configuration state the same tensors, the ONNX file's."""
    cpu, gpu = (
        text_format.Parse(
            (MODELS / name / "configs" / f"{kind}.pbtxt").read_text(),
            model_config_pb2.ModelConfig(),
        )
        for kind in ("cpu", "gpu")
    )
    assert cpu.input == gpu.input
    assert cpu.output == gpu.output
    assert dict(cpu.parameters) == dict(gpu.parameters)
    session = onnxruntime.InferenceSession(MODELS / name / "1" / "model.onnx")
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:]) == (cpu.input[0].name, list(cpu.input[0].dims))
    assert (made.name, made.shape[1:]) == (cpu.output[0].name, list(cpu.output[0].dims))


async def test_unknown_model(triton: EmbeddedTriton) -> None:
    async with open_client(triton.url) as there:
        with pytest.raises(UnknownModel, match="nothing"):
            await there.models.get_spec("nothing")


async def test_models_are_listed(triton: EmbeddedTriton) -> None:
    async with open_client(triton.url) as there:
        models = await there.models.list_models()
    assert [(model["name"], model["state"]) for model in models] == [
        (name, "READY") for name in NAMES
    ]


async def test_deadline_ends_the_wait(triton: EmbeddedTriton) -> None:
    async with open_client(triton.url) as there:
        await there.models.get_spec("rehue")
        with pytest.raises(DeadlineExceeded):
            await infer_random(there, seconds=0.002)


async def test_unreachable_triton_is_reported_at_once() -> None:
    async with open_client("127.0.0.1:9") as there:
        assert not there.ready
        with pytest.raises(Unavailable) as caught:
            await there.models.get_spec("rehue")
        assert caught.value.retry_after


async def test_killed_triton_loses_no_photograph(triton: EmbeddedTriton) -> None:
    with EmbeddedTriton(MODELS, models=("rehue",)) as other:
        async with open_client(triton.url, other.url) as there:
            await infer_random(there)
            work = [asyncio.create_task(infer_random(there, seed)) for seed in range(60)]
            await asyncio.sleep(0.3)
            os.kill(other.pid, signal.SIGKILL)
            assert all(isinstance(output, np.ndarray) for output in await asyncio.gather(*work))


async def test_frozen_triton_loses_no_photograph(triton: EmbeddedTriton) -> None:
    with EmbeddedTriton(MODELS, models=("rehue",)) as other:
        async with open_client(triton.url, other.url) as there:
            await infer_random(there)
            os.kill(other.pid, signal.SIGSTOP)
            try:
                await asyncio.gather(*(infer_random(there, seed) for seed in range(20)))
            finally:
                os.kill(other.pid, signal.SIGCONT)


async def test_single_triton_is_found_again() -> None:
    first = EmbeddedTriton(MODELS, models=("rehue",))
    with first:
        async with open_client(first.url) as there:
            await infer_random(there)
            os.kill(first.pid, signal.SIGKILL)
            while there.ready:
                await asyncio.sleep(0.05)
            with pytest.raises(Unavailable):
                await infer_random(there)
            first.stop()
            await asyncio.to_thread(first.start)
            began = time.monotonic()
            while not there.ready:
                await asyncio.sleep(0.05)
            assert time.monotonic() - began < 5
            await infer_random(there)


def test_killed_triton_leaves_no_shared_memory(tmp_path: Path) -> None:
    with SleepingTriton(tmp_path) as triton:
        regions = set(SHARED_MEMORY.glob("triton-rehue-triton-*"))
        os.kill(triton.pid, signal.SIGKILL)
    assert regions - set(SHARED_MEMORY.glob("triton-rehue-triton-*"))


def test_triton_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from rehue_serve.testing.tritons import SleepingTriton\n"
        "triton = SleepingTriton(pathlib.Path(sys.argv[1]))\n"
        "triton.start()\n"
        "print(triton.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        triton = psutil.Process(int(server.stdout.readline()))  # type: ignore[union-attr]
        whole = [triton, *triton.children()]
        server.kill()
    deadline = time.monotonic() + 30
    while any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in whole
    ):
        assert time.monotonic() < deadline, whole
        time.sleep(0.1)


def test_reason_of_a_failed_start_is_tritons_own(tmp_path: Path) -> None:
    (tmp_path / "rehue" / "1").mkdir(parents=True)
    (tmp_path / "rehue" / "configs").symlink_to(MODELS / "rehue" / "configs")
    with pytest.raises(TritonFailed, match=r"model\.onnx is missing"), EmbeddedTriton(tmp_path):
        pass


async def test_triton_does_not_run_canceled_requests(triton: EmbeddedTriton) -> None:
    def metric(name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{triton.metrics_port}/metrics").text
        start = f'nv_inference_{name}{{model="rehue"'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(start))

    names = ("exec_count", "compute_infer_duration_us", "queue_duration_us")
    async with open_client(triton.url) as there:
        await infer_random(there)
        before = {name: metric(name) for name in names}
        # The first call keeps Triton busy, so that the second waits in its queue.
        work = [asyncio.create_task(infer_random(there, seed)) for seed in range(16)]
        await asyncio.sleep(0.05)
        for task in work:
            task.cancel()
        while metric("exec_count") < before["exec_count"] + 2:
            await asyncio.sleep(0.1)
    _, computed, waited = (metric(name) - before[name] for name in names)
    # The second waited as long as the first took; had it been run, both had taken twice that.
    assert computed < 1.5 * waited
