"""The network alone in ONNX Runtime, to compare a server with."""

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import Callable

import numpy as np
import onnxruntime

from loadtest.samples import ROOT

MAX_BATCH = 8  # of the bare model, as in Triton's configuration


class BareModel:
    """The ONNX file in ONNX Runtime: all waiting inputs form a batch, up to MAX_BATCH."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = ROOT / "model_repository" / model / "1" / "model.onnx"
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        side = self._session.get_inputs()[0].shape[-1]
        self._input = np.random.default_rng(0).integers(0, 256, (1, side, side), np.uint8)
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def infer(self, _: bytes) -> None:
        """Run the network on a random input and wait for its output."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.put(functools.partial(loop.call_soon_threadsafe, _set_done, done))
        await done

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < MAX_BATCH:
                    batch.append(self._waiting.get_nowait())
            callbacks = [callback for callback in batch if callback is not None]
            if callbacks:
                self._session.run(None, {"lightness": np.stack([self._input] * len(callbacks))})
            for callback in callbacks:
                callback()
            if len(callbacks) < len(batch):  # closed
                return


def _set_done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
