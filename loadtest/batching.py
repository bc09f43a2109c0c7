"""Who should put photographs together for one call to Triton: we, Ray, Triton, or two of them."""

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

from rehue_core.colorize import ModelSpec, Tensor
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.endpoints import Endpoint, Endpoints
from rehue_serve.inference import infer_batch
from rehue_serve.local_ray import OBJECT_STORE_BYTES
from rehue_serve.testing.tritons import run_sleeping_triton
from rehue_serve.triton import TritonClient
from running import ROOT, saturate

SECONDS = (
    0.02  # of a stand-in for a batch of up to 8, as a GPU takes little longer for 8 than for 1
)
CONCURRENCY = 32
CALLS = 2  # under way at once, where calls are gathered before Triton
# Triton's `dynamic_batching`.
BATCHERS = {
    "on": "",
    "on, queue bounded": "default_queue_policy { max_queue_size: 64 }",
    "off": None,
}
LONE = 30  # calls one at a time, for latency

Infer = Callable[[Tensor], Awaitable[object]]


def gathered(triton: TritonClient, spec: ModelSpec) -> Infer:
    """A call leaves when Triton has a place for it, with all that wait by then."""
    return lambda one: triton.infer(spec, one, asyncio.get_running_loop().time() + 60)


def alone(triton: TritonClient, spec: ModelSpec) -> Infer:
    """Every photograph at once in a call of its own."""
    return gathered(triton, dataclasses.replace(spec, max_batch=1))


def rays(endpoint: Endpoint, spec: ModelSpec, wait: float) -> Infer:
    """Ray's `@serve.batch`: a call leaves when it is full, or when its first has waited so long."""

    @serve.batch(
        max_batch_size=spec.max_batch, batch_wait_timeout_s=wait, max_concurrent_batches=CALLS
    )
    async def infer(inputs: list[Tensor]) -> list[Tensor]:
        return list((await infer_batch(endpoint, spec, inputs, timeout=60)).outputs)

    return infer


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=2 * CONCURRENCY)
class Measured:
    """The ways side by side in a replica, since `@serve.batch` works nowhere else."""

    async def ways(self, url: str, seconds: float) -> dict[str, dict[str, float]]:
        rows = {}
        for limit in (CALLS, CONCURRENCY):
            triton = TritonClient(
                Endpoints([url], model="rehue", limit=limit), default_model="rehue"
            )
            await triton.start()
            spec = await triton.models.get_spec("rehue")
            (endpoint,) = triton.endpoints.list_all()
            ways = {"each alone": alone(triton, spec)}
            if limit == CALLS:
                ways = {
                    "gathered by us": gathered(triton, spec),
                    "@serve.batch, 0 ms": rays(endpoint, spec, 0.0),
                    "@serve.batch, 5 ms": rays(endpoint, spec, 0.005),
                }
            for name, infer in ways.items():
                rows[name] = await one(infer, spec, seconds)
            await triton.close()
        return rows


async def one(infer: Infer, spec: ModelSpec, seconds: float) -> dict[str, float]:
    """Rate and this process's CPU with many at a time; latency with one."""
    shape = (1, spec.height, spec.width)
    input = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    async def send() -> None:
        await infer(input)

    rate, cpu = await saturate(send, seconds, CONCURRENCY, time.process_time)
    took = []
    for _ in range(LONE):
        began = time.perf_counter()
        await send()
        took.append(time.perf_counter() - began)
    return {
        "images/s": rate,
        "CPU ms of the caller": cpu * 1000,
        "one at a time, ms": statistics.median(took) * 1000,
        "the longest of them, ms": max(took) * 1000,
    }


def compare(seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Tables by what stands behind: a stand-in with and without Triton's batcher, the network."""
    tables = {}
    with replica() as measured:
        for name, batcher in BATCHERS.items():
            with run_sleeping_triton(SECONDS, batcher=batcher) as triton:
                title = f"{SECONDS * 1000:.0f} ms a call, Triton's batcher {name}"
                tables[title] = measured.ways.remote(triton.url, seconds).result()
        with EmbeddedTriton(ROOT / "model_repository", models=("rehue",)) as triton:
            tables["rehue on the CPU"] = measured.ways.remote(triton.url, seconds).result()
    return tables


@contextlib.contextmanager
def replica() -> Iterator[serve.handle.DeploymentHandle]:
    """A Ray of this process's own, with `Measured` and without any port of HTTP."""
    with tempfile.TemporaryDirectory(prefix="rehue-") as directory:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT / "loadtest")}},
            _temp_dir=directory,
        )
        serve.start(http_options=HTTPOptions(location="NoServer"))
        try:
            yield serve.run(Measured.bind(), name="batching", route_prefix=None)
        finally:
            serve.shutdown()
            ray.shutdown()
