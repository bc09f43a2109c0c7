"""Calls to a Triton through the server's own client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehue_core.colorize import ModelSpec
from rehue_serve.endpoints import Endpoints
from rehue_serve.triton import TritonClient


@contextlib.asynccontextmanager
async def open_client(*urls: str, shared_memory: bool = False) -> AsyncIterator[TritonClient]:
    """Yield a started client of these Tritons."""
    endpoints = Endpoints(urls, model="rehue", limit=2)
    triton = TritonClient(endpoints, default_model="rehue", shared_memory=shared_memory)
    await triton.start()
    try:
        yield triton
    finally:
        await triton.close()


def get_deadline(seconds: float) -> float:
    """Return the event loop's time in so many seconds."""
    return asyncio.get_running_loop().time() + seconds


def create_input(spec: ModelSpec, seed: int) -> NDArray[Any]:
    """Return a random input of the network."""
    shape = (1, spec.height, spec.width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


async def infer_random(triton: TritonClient, seed: int = 0, seconds: float = 60.0) -> NDArray[Any]:
    """Return the network's output for a random input."""
    spec = await triton.models.get_spec("rehue")
    return (await triton.infer(spec, create_input(spec, seed), get_deadline(seconds)))[0]
