"""Ways to batch photographs into calls to Triton: in Rehue, in Ray Serve, in Triton."""

import asyncio
import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import ray
from ray import serve
from ray.serve.config import HTTPOptions

from loadtest.samples import ROOT
from loadtest.saturation import saturate
from rehue_core.colorize import ModelSpec, Tensor
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.endpoints import Endpoint, Endpoints
from rehue_serve.inference import infer_batch
from rehue_serve.local_ray import OBJECT_STORE_BYTES
from rehue_serve.testing.tritons import run_sleeping_triton
from rehue_serve.triton import TritonClient

# For a batch of up to 8: a GPU takes little longer for 8 than for 1.
BATCH_SECONDS = 0.02
CONCURRENCY = 32
CALLS = 2  # in flight, for the ways that batch before Triton
# Triton's `dynamic_batching`.
BATCHERS = {
    "on": "",
    "on, queue bounded": "default_queue_policy { max_queue_size: 64 }",
    "off": None,
}
SINGLE_CALLS = 30  # one at a time, for latency

Infer = Callable[[Tensor], Awaitable[object]]


def batch_in_rehue(triton: TritonClient, spec: ModelSpec) -> Infer:
    """Batch all waiting photographs as soon as a call to Triton is free."""
    return lambda tensor: triton.infer(spec, tensor, asyncio.get_running_loop().time() + 60)


def send_unbatched(triton: TritonClient, spec: ModelSpec) -> Infer:
    """Send each photograph at once in a call of its own."""
    return batch_in_rehue(triton, dataclasses.replace(spec, max_batch=1))


def batch_in_ray(endpoint: Endpoint, spec: ModelSpec, wait: float) -> Infer:
    """Batch with Ray's `@serve.batch`: until the batch is full or its first input waited."""

    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=spec.max_batch, batch_wait_timeout_s=wait, max_concurrent_batches=CALLS
    )
    async def infer(inputs: list[Tensor]) -> list[Tensor]:
        return list((await infer_batch(endpoint, spec, inputs, timeout=60)).outputs)

    return infer  # type: ignore[no-any-return]


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=2 * CONCURRENCY)
class Comparison:
    """Measures the ways in a replica: `@serve.batch` works nowhere else."""

    async def measure(self, url: str, seconds: float) -> dict[str, dict[str, float]]:
        rows = {}
        for limit in (CALLS, CONCURRENCY):
            triton = TritonClient(
                Endpoints([url], model="rehue", limit=limit), default_model="rehue"
            )
            await triton.start()
            spec = await triton.models.get_spec("rehue")
            (endpoint,) = triton.endpoints.list_all()
            ways = {"each alone": send_unbatched(triton, spec)}
            if limit == CALLS:
                ways = {
                    "gathered by us": batch_in_rehue(triton, spec),
                    "@serve.batch, 0 ms": batch_in_ray(endpoint, spec, 0.0),
                    "@serve.batch, 5 ms": batch_in_ray(endpoint, spec, 0.005),
                }
            for name, infer in ways.items():
                rows[name] = await measure_way(infer, spec, seconds)
            await triton.close()
        return rows


async def measure_way(infer: Infer, spec: ModelSpec, seconds: float) -> dict[str, float]:
    """Return rate and CPU of this process under load, and the latency of single calls."""
    shape = (1, spec.height, spec.width)
    input = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    async def send() -> None:
        await infer(input)

    rate, cpu = await saturate(send, seconds, CONCURRENCY, time.process_time)
    latencies = []
    for _ in range(SINGLE_CALLS):
        start = time.perf_counter()
        await send()
        latencies.append(time.perf_counter() - start)
    return {
        "images/s": rate,
        "CPU ms of the caller": cpu * 1000,
        "one at a time, ms": statistics.median(latencies) * 1000,
        "the longest of them, ms": max(latencies) * 1000,
    }


def compare_batching(seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Return a table for each Triton: sleeping, with and without its batcher, and the model."""
    tables = {}
    with run_replica() as comparison:
        for name, batcher in BATCHERS.items():
            with run_sleeping_triton(BATCH_SECONDS, batcher=batcher) as triton:
                title = f"{BATCH_SECONDS * 1000:.0f} ms a call, Triton's batcher {name}"
                tables[title] = comparison.measure.remote(triton.url, seconds).result()
        with EmbeddedTriton(ROOT / "model_repository", models=("rehue",)) as triton:
            tables["rehue on the CPU"] = comparison.measure.remote(triton.url, seconds).result()
    return tables


@contextlib.contextmanager
def run_replica() -> Iterator[serve.handle.DeploymentHandle]:
    """Start a Ray of this process's own, without HTTP, and yield a handle of `Comparison`."""
    with tempfile.TemporaryDirectory(prefix="rehue-") as directory:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
            _temp_dir=directory,
        )
        serve.start(http_options=HTTPOptions(location="NoServer"))
        try:
            yield serve.run(Comparison.bind(), name="batching", route_prefix=None)  # type: ignore[attr-defined]
        finally:
            serve.shutdown()
            ray.shutdown()
