"""Client of a set of Tritons: batches photographs, balances, retries and hedges calls.

A call leaves as soon as an endpoint has capacity for it, with every photograph of one model
that waits at that moment. So no photograph waits for others while the Tritons are idle, and
batches grow by themselves when they are busy.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field

import grpc
import numpy as np

from rehue_core.colorize import ModelSpec, Tensor
from rehue_serve import metrics, tracing
from rehue_serve.background import MAX_PHOTOGRAPHS, BackgroundPace
from rehue_serve.endpoints import PROBE_TIMEOUT, Endpoint, Endpoints
from rehue_serve.errors import DeadlineExceeded, Internal, Overloaded, RehueError
from rehue_serve.inference import InferenceResult, infer_batch
from rehue_serve.models import ModelCatalog, no_endpoint_available
from rehue_serve.queue import PhotographQueue, QueuedPhotograph
from rehue_serve.settings import Settings
from rehue_serve.shared_memory import SharedMemory, is_unknown_region

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 4  # calls for one photograph
# Retries may be this share of successful calls, with a reserve to start with, so that a
# failing cluster is not called twice as often as a healthy one.
RETRY_SHARE, RETRY_RESERVE = 0.2, 20.0
RECENT_CALLS = 100  # whose durations define a slow call


@dataclass
class RetryBudget:
    """How many calls may be retried or hedged."""

    left: float = field(default=RETRY_RESERVE)

    def earn(self) -> None:
        self.left = min(RETRY_RESERVE, self.left + RETRY_SHARE)

    def spend(self) -> bool:
        if self.left < 1:
            return False
        self.left -= 1
        return True


class TritonClient:
    """Inference on a set of endpoints. Belongs to one event loop."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        default_model: str,
        hedge: float = 0.0,
        shared_memory: bool = False,
        background: bool = False,
    ) -> None:
        """Create a client; `start` connects it.

        Args:
            hedge: quantile of recent call durations, 0 to 1, after which a call is also made
                to a second Triton; 0: never.
            shared_memory: pass tensors in shared memory to Tritons on this host.
            background: leave the Tritons to others, see `rehue_serve.background`.
        """
        self.endpoints = endpoints
        endpoints.check_inference = self._check_inference
        self._default_model = default_model
        self.models = ModelCatalog(endpoints, default_model=default_model)
        self._memory = SharedMemory() if shared_memory else None
        self._hedge = hedge
        self._pace = BackgroundPace() if background else None
        self._durations: deque[float] = deque(maxlen=RECENT_CALLS)  # seconds
        self._queue = PhotographQueue()
        self._budget = RetryBudget()
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.endpoints.start()
        self._dispatcher = asyncio.create_task(self._dispatch())

    async def close(self) -> None:
        self._dispatcher.cancel()
        await asyncio.gather(self._dispatcher, *self._calls, return_exceptions=True)
        if self._memory:
            await self._memory.close()
        await self.endpoints.close()

    @property
    def ready(self) -> bool:
        """Whether a healthy endpoint serves the default model."""
        return any(endpoint.healthy for endpoint in self.endpoints.list_all())

    async def infer(self, spec: ModelSpec, input: Tensor, deadline: float) -> tuple[Tensor, str]:
        """Run the network on one photograph; return its output and the model's version.

        Args:
            input: 1HW of the model's input type.
            deadline: loop time at which the call gives up.

        Returns:
            2hw of the model's output type, in counts of ``ab_scale``.

        Raises:
            DeadlineExceeded: the deadline passed.
            Overloaded: the Tritons' queues are full.
            Unavailable: no Triton is healthy, or all attempts failed.
            Internal: a Triton's response breaks the contract.
        """
        result: asyncio.Future[tuple[Tensor, str]] = asyncio.get_running_loop().create_future()
        self._queue.put(QueuedPhotograph(spec, input, deadline, result, tracing.get_current_span()))
        try:
            async with asyncio.timeout_at(deadline):
                return await result
        except TimeoutError:
            raise DeadlineExceeded("The deadline for this photograph has passed.") from None

    async def _dispatch(self) -> None:
        while True:
            await self._queue.wait()
            endpoint = await self.endpoints.acquire()
            if endpoint is None:
                self._queue.fail_all(no_endpoint_available())
            elif photographs := self._queue.take_batch(MAX_PHOTOGRAPHS if self._pace else None):
                self._start_call(endpoint, photographs, may_hedge=self._hedge > 0)
            else:
                self.endpoints.release(endpoint)

    def _start_call(
        self, endpoint: Endpoint, photographs: list[QueuedPhotograph], *, may_hedge: bool
    ) -> None:
        for photograph in photographs:
            photograph.calls += 1
        call = asyncio.create_task(self._call(endpoint, photographs))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        if may_hedge and len(self._durations) == RECENT_CALLS:
            slow = sorted(self._durations)[int(self._hedge * RECENT_CALLS)]
            loop = asyncio.get_running_loop()
            timer = loop.call_later(slow, self._hedge_call, endpoint, photographs)
            call.add_done_callback(lambda _: timer.cancel())

    def _hedge_call(self, slow: Endpoint, photographs: list[QueuedPhotograph]) -> None:
        """Make a slow call to another Triton too, if one has capacity; the first answer counts."""
        waiting = [photograph for photograph in photographs if not photograph.result.done()]
        other = self.endpoints.try_acquire_other(slow) if waiting else None
        if other is None:
            return
        if self._budget.spend():
            self._start_call(other, waiting, may_hedge=False)
        else:
            self.endpoints.release(other)

    async def _call(self, endpoint: Endpoint, photographs: list[QueuedPhotograph]) -> None:
        metrics.record_call_started(len(photographs))
        loop = asyncio.get_running_loop()
        started = loop.time()
        parents = [(photograph.span, photograph.attempts) for photograph in photographs]
        spans, metadata = tracing.start_call_spans(parents, endpoint.address)
        outcome = "CANCELLED"
        timeout = max(photograph.deadline for photograph in photographs) - started
        request: asyncio.Future[InferenceResult] = asyncio.ensure_future(
            infer_batch(
                endpoint,
                photographs[0].spec,
                [photograph.input for photograph in photographs],
                timeout=max(0.001, timeout),
                metadata=metadata,
                memory=self._memory,
            )
        )
        endpoint.calls.add(request)
        _cancel_when_unwanted(request, photographs)
        try:
            result = await request
        except grpc.aio.AioRpcError as error:
            outcome = error.code().name
            self._handle_failure(endpoint, photographs, error.code(), error.details() or "")
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            self._retry(photographs, no_endpoint_available())
        except Exception as error:  # any other error: the callers still get an answer
            if isinstance(error, ValueError | IndexError):
                outcome = "OK"  # for gRPC; the response breaks the contract
            log.exception("triton %s: the response cannot be used", endpoint.address)
            self._retry(photographs, Internal("The model server's answer cannot be used."))
        else:
            outcome = "OK"
            seconds = loop.time() - started
            self._durations.append(seconds)
            if self._pace:
                pause = self._pace.choose_pause(endpoint.address, len(photographs), seconds)
                self.endpoints.pause(endpoint, pause)
            self._handle_success(endpoint, photographs, result)
        finally:
            endpoint.calls.discard(request)
            self.endpoints.release(endpoint)
            metrics.record_call_ended(outcome)
            tracing.end_call_spans(spans, outcome)

    def _handle_success(
        self, endpoint: Endpoint, photographs: list[QueuedPhotograph], result: InferenceResult
    ) -> None:
        self.endpoints.record_success(endpoint)
        self._budget.earn()
        for photograph, output in zip(photographs, result.outputs, strict=True):
            if not photograph.result.done():
                photograph.result.set_result((output, result.version))

    def _handle_failure(
        self,
        endpoint: Endpoint,
        photographs: list[QueuedPhotograph],
        code: grpc.StatusCode,
        details: str,
    ) -> None:
        """Decide what a failed call means for its endpoint, and retry its photographs."""
        model = photographs[0].spec.name
        error: RehueError = no_endpoint_available()
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return  # every photograph's own deadline has passed too
        if code == grpc.StatusCode.UNAVAILABLE and _is_queue_full(details):
            self.endpoints.pause(endpoint)
            error = Overloaded("The model servers are busy.", retry_after=1.0)
        elif is_unknown_region(details):
            pass  # the next call registers new files
        elif code == grpc.StatusCode.NOT_FOUND and model != self._default_model:
            # Unloaded since its configuration was read; the endpoint itself is healthy.
            self.models.forget(model)
        elif code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.NOT_FOUND,  # what a stopping server says of its models
            grpc.StatusCode.CANCELLED,
        ):
            self.endpoints.eject(endpoint, details)
        else:
            reason = f"{code.name} {details}"
            self.endpoints.record_error(endpoint, reason, ejects=model == self._default_model)
        self._retry(photographs, error)

    async def _check_inference(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint runs the default model on a black photograph."""
        try:
            spec = await self.models.get_spec(self._default_model)
            black = np.zeros((1, spec.height, spec.width), spec.input_type)
            await infer_batch(endpoint, spec, [black], timeout=PROBE_TIMEOUT)
        except (RehueError, grpc.aio.AioRpcError, ValueError, IndexError):
            return False
        return True

    def _retry(self, photographs: list[QueuedPhotograph], error: RehueError) -> None:
        """Put photographs back into the queue; fail those without attempts or budget left."""
        for photograph in photographs:
            photograph.calls -= 1
        # A photograph with a hedged call in flight still has its other chance.
        unanswered = [
            photograph
            for photograph in photographs
            if not photograph.calls and not photograph.result.done()
        ]
        if not unanswered:
            return
        allowed = self._budget.spend()
        again = []
        for photograph in unanswered:
            photograph.attempts += 1
            if allowed and photograph.attempts < MAX_ATTEMPTS:
                again.append(photograph)
            else:
                photograph.fail(error)
        self._queue.put_back(again)


def build_triton_client(settings: Settings, *, background: bool = False) -> TritonClient:
    """Build a client of the Tritons that the settings name.

    Args:
        background: see `TritonClient`.
    """
    limit = 1 if background else settings.triton_calls
    endpoints = Endpoints(settings.triton_urls, model=settings.model, limit=limit)
    return TritonClient(
        endpoints,
        default_model=settings.model,
        hedge=settings.hedge,
        shared_memory=settings.shared_memory,
        background=background,
    )


def _cancel_when_unwanted(
    request: "asyncio.Future[InferenceResult]", photographs: list[QueuedPhotograph]
) -> None:
    """Cancel a call as soon as none of its photographs is waited for."""

    def cancel_if_unwanted(_: object) -> None:
        if all(photograph.result.done() for photograph in photographs):
            request.cancel()

    for photograph in photographs:
        photograph.result.add_done_callback(cancel_if_unwanted)


def _is_queue_full(details: str) -> bool:
    return "maximum queue size" in details or "timeout expired" in details
