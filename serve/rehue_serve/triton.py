"""Photographs to Triton and their colours back, several a call where they wait together.

A call leaves as soon as an endpoint has a place for it, with every photograph
of one model that waits by then. So nothing waits for company while the Tritons
are idle, and calls grow by themselves when they are busy.
"""

import asyncio
import json
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.trace import Span
from tritonclient.grpc import service_pb2

from rehue_core.colorize import ModelSpec, Tensor
from rehue_core.spec import parse_model_contract
from rehue_serve import metrics, tensors, tracing
from rehue_serve.endpoints import Endpoint, Endpoints
from rehue_serve.errors import (
    DeadlineExceeded,
    Internal,
    Overloaded,
    RehueError,
    Unavailable,
    UnknownModel,
)
from rehue_serve.tensors import Answer, SharedMemory

log = logging.getLogger(__name__)

SPEC_AGE = 10.0  # seconds until a model's configuration is asked for again
ATTEMPTS = 4  # calls for one photograph at most
# Calls made again may be this share of those that succeed, with some to begin
# with, so that a dying cluster is not asked twice as much as a healthy one.
RETRY_SHARE, RETRY_RESERVE = 0.2, 20.0
RECENT_CALLS = 100  # whose times say what a slow call is


@dataclass(eq=False)
class _Waiting:
    """One photograph on its way."""

    spec: ModelSpec
    input: Tensor  # 1HW
    deadline: float  # loop time
    answer: "asyncio.Future[tuple[Tensor, str]]"
    span: Span | None = None  # that the calls' spans lie below, where the photograph is traced
    attempts: int = 0
    calls: int = 0  # under way with it


@dataclass
class _Budget:
    """How many calls may be made again."""

    left: float = field(default=RETRY_RESERVE)

    def earn(self) -> None:
        self.left = min(RETRY_RESERVE, self.left + RETRY_SHARE)

    def spend(self) -> bool:
        if self.left < 1:
            return False
        self.left -= 1
        return True


class TritonClient:
    """The models behind a set of endpoints, as one. Belongs to one event loop."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        default_model: str,
        hedge: float = 0.0,
        shared_memory: bool = False,
    ) -> None:
        """``hedge``: the share of recent calls that a call outlasts to be made twice; 0: none.

        ``shared_memory``: with Tritons of this host.
        """
        self.endpoints = endpoints
        self._memory = SharedMemory() if shared_memory else None
        self.default_model = default_model
        self._hedge = hedge
        self._took: deque[float] = deque(maxlen=RECENT_CALLS)  # seconds
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._budget = _Budget()
        self._specs: dict[str, tuple[float, ModelSpec]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.endpoints.start()
        self._dispatcher = asyncio.create_task(self._dispatch())

    async def close(self) -> None:
        self._dispatcher.cancel()
        await asyncio.gather(self._dispatcher, *self._tasks, return_exceptions=True)
        if self._memory:
            await self._memory.close()
        await self.endpoints.close()

    @property
    def ready(self) -> bool:
        """Whether the default model is served somewhere."""
        return any(one.healthy for one in self.endpoints.list_all())

    async def get_model_spec(self, model: str) -> ModelSpec:
        """The contract of a model, read from Triton's configuration of it.

        Raises:
            UnknownModel, Unavailable, Internal: as their names say.
        """
        now = asyncio.get_running_loop().time()
        read, spec = self._specs.get(model, (0.0, None))
        if spec is not None and now - read < SPEC_AGE:
            return spec
        try:
            spec = await self._read_spec(model)
        except Unavailable:
            if spec is None:
                raise
        self._specs[model] = (now, spec)
        return spec

    async def _read_spec(self, model: str) -> ModelSpec:
        request = service_pb2.ModelConfigRequest(name=model)
        unknown = 0
        endpoints = self.endpoints.list_available()
        for endpoint in endpoints:
            try:
                answer = await _unless_closed(endpoint.stub.ModelConfig(request, timeout=5))
            except grpc.aio.AioRpcError as error:
                unknown += error.code() in (
                    grpc.StatusCode.NOT_FOUND,
                    grpc.StatusCode.INVALID_ARGUMENT,
                )
                continue
            if answer is not None:
                return _contract(answer.config)
        # The default model exists: a Triton that does not know it has yet to load it.
        if unknown and unknown == len(endpoints) and model != self.default_model:
            self._specs.pop(model, None)
            raise UnknownModel(f"There is no model {json.dumps(model[:100])}; see /v1/models.")
        raise _unavailable()

    async def list_models(self) -> list[dict[str, object]]:
        """Each model's name, version and state, as the first endpoint that answers has it."""
        for endpoint in self.endpoints.list_available():
            try:
                answer = await _unless_closed(
                    endpoint.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=5)
                )
            except grpc.aio.AioRpcError:
                continue
            if answer is None:
                continue
            return [
                {
                    "name": item.name,
                    "version": item.version,
                    "state": item.state,
                    "default": item.name == self.default_model,
                }
                for item in sorted(answer.models, key=lambda item: (item.name, item.version))
            ]
        raise _unavailable()

    async def infer(self, spec: ModelSpec, input: Tensor, deadline: float) -> tuple[Tensor, str]:
        """The network's output for one photograph, and the version that made it.

        Args:
            input: 1HW of the model's input type.
            deadline: loop time after which nobody waits for the answer.

        Returns:
            2hw of the model's output type, in counts of ``ab_scale``.

        Raises:
            DeadlineExceeded, Overloaded, Unavailable, Internal: as their names say.
        """
        loop = asyncio.get_running_loop()
        one = _Waiting(spec, input, deadline, loop.create_future(), tracing.current())
        self._waiting.append(one)
        self._arrived.set()
        try:
            async with asyncio.timeout_at(deadline):
                return await one.answer
        except TimeoutError:
            raise DeadlineExceeded("The time for this photograph is over.") from None

    async def _dispatch(self) -> None:
        while True:
            await self._arrived.wait()
            endpoint = await self.endpoints.acquire()
            photographs = self._take() if endpoint else []
            if endpoint and photographs:
                self._start_call(endpoint, photographs, may_hedge=self._hedge > 0)
            elif endpoint:
                self.endpoints.release(endpoint)
            else:
                while self._waiting:
                    _fail(self._waiting.popleft(), _unavailable())
            if not self._waiting:
                self._arrived.clear()

    def _take(self) -> list[_Waiting]:
        """The oldest photograph that somebody waits for, and what goes with it."""
        waiting = [one for one in self._waiting if not one.answer.done()]
        if not waiting:
            self._waiting.clear()
            return []
        spec = waiting[0].spec
        taken = [one for one in waiting if one.spec == spec][: max(1, spec.max_batch)]
        chosen = set(map(id, taken))
        self._waiting = deque(one for one in waiting if id(one) not in chosen)
        return taken

    def _start_call(
        self, endpoint: Endpoint, photographs: list[_Waiting], *, may_hedge: bool
    ) -> None:
        for one in photographs:
            one.calls += 1
        task = asyncio.create_task(self._call(endpoint, photographs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if may_hedge and len(self._took) == RECENT_CALLS:
            slow = sorted(self._took)[int(self._hedge * RECENT_CALLS)]
            loop = asyncio.get_running_loop()
            timer = loop.call_later(slow, self._call_twice, endpoint, photographs)
            task.add_done_callback(lambda _: timer.cancel())

    def _call_twice(self, slow: Endpoint, photographs: list[_Waiting]) -> None:
        """Asks another Triton too, where one is free; the first answer counts."""
        waiting = [one for one in photographs if not one.answer.done()]
        other = self.endpoints.spare(slow) if waiting else None
        if other is None:
            return
        if self._budget.spend():
            self._start_call(other, waiting, may_hedge=False)
        else:
            self.endpoints.release(other)

    async def _call(self, endpoint: Endpoint, photographs: list[_Waiting]) -> None:
        metrics.called(len(photographs))
        loop = asyncio.get_running_loop()
        began = loop.time()
        timeout = max(one.deadline for one in photographs) - began
        parents = [(one.span, one.attempts) for one in photographs]
        spans, metadata = tracing.calls(parents, endpoint.address)
        outcome = "CANCELLED"
        task: asyncio.Future[Any] = asyncio.ensure_future(
            tensors.infer(
                endpoint,
                photographs[0].spec,
                [one.input for one in photographs],
                timeout=max(0.001, timeout),
                metadata=metadata,
                memory=self._memory,
            )
        )
        endpoint.calls.add(task)

        def nobody_waits(_: object) -> None:
            if all(one.answer.done() for one in photographs):
                task.cancel()

        for one in photographs:
            one.answer.add_done_callback(nobody_waits)
        try:
            answer = await task
        except grpc.aio.AioRpcError as error:
            outcome = error.code().name
            self._failed(endpoint, photographs, error.code(), error.details() or "")
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            self._again(photographs, _unavailable())
        except Exception as error:  # whatever it was, nobody waits for nothing
            if isinstance(error, ValueError | IndexError):
                outcome = "OK"  # gRPC's; the answer breaks the contract
            log.exception("triton %s: a call cannot be used", endpoint.address)
            self._again(photographs, Internal("The model server's answer cannot be used."))
        else:
            outcome = "OK"
            self._took.append(loop.time() - began)
            self._succeeded(endpoint, photographs, answer)
        finally:
            endpoint.calls.discard(task)
            self.endpoints.release(endpoint)
            metrics.ended(outcome)
            tracing.called(spans, outcome)

    def _succeeded(self, endpoint: Endpoint, photographs: list[_Waiting], answer: Answer) -> None:
        self.endpoints.succeeded(endpoint)
        self._budget.earn()
        for one, output in zip(photographs, answer.values, strict=True):
            if not one.answer.done():
                one.answer.set_result((output, answer.version))

    def _failed(
        self, endpoint: Endpoint, photographs: list[_Waiting], code: grpc.StatusCode, details: str
    ) -> None:
        """Sorts a failed call: whose fault it is, and whether another try can help."""
        model = photographs[0].spec.name
        full = "maximum queue size" in details or "timeout expired" in details
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            # Everybody's own deadline has passed by now; nothing is left to answer.
            return
        if code == grpc.StatusCode.UNAVAILABLE and full:
            self.endpoints.full(endpoint)
            self._again(photographs, Overloaded("The model servers are busy.", retry_after=1.0))
        elif tensors.unknown(details):  # the next call tells it of new files
            self._again(photographs, _unavailable())
        elif code == grpc.StatusCode.NOT_FOUND and model != self.default_model:
            # Unloaded since its configuration was read; the endpoint itself is well.
            self._specs.pop(model, None)
            self._again(photographs, _unavailable())
        elif code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.NOT_FOUND,  # what a stopping server says of its models
            grpc.StatusCode.CANCELLED,
        ):
            self.endpoints.eject(endpoint, details)
            self._again(photographs, _unavailable())
        else:
            self.endpoints.erred(endpoint, f"{code.name} {details}")
            self._again(photographs, _unavailable())

    def _again(self, photographs: list[_Waiting], error: RehueError) -> None:
        """Back to the head of the queue, unless they were tried often enough."""
        for one in photographs:
            one.calls -= 1
        photographs = [one for one in photographs if not one.calls and not one.answer.done()]
        if not photographs:
            return
        allowed = self._budget.spend()
        for one in reversed(photographs):
            one.attempts += 1
            if allowed and one.attempts < ATTEMPTS:
                self._waiting.appendleft(one)
            else:
                _fail(one, error)
        self._arrived.set()


async def _unless_closed(call: "grpc.aio.UnaryUnaryCall[Any, Any]") -> Any:
    """A call's answer; None where its connection was given up, which gRPC tells the caller
    as if the caller's own task were cancelled.
    """
    try:
        return await call
    except asyncio.CancelledError:
        if asyncio.current_task().cancelling():  # type: ignore[union-attr]
            raise
        return None


def _fail(one: _Waiting, error: RehueError) -> None:
    if not one.answer.done():
        one.answer.set_exception(error)


def _unavailable() -> Unavailable:
    return Unavailable("No model server is available at the moment.", retry_after=1.0)


def _contract(config: Any) -> ModelSpec:
    """The contract in a ModelConfig.

    Raises:
        Internal: the model is not one of ours; the log says what is missing.
    """
    try:
        return parse_model_contract(config)
    except ValueError as error:
        log.error("model %s breaks the contract: %s", config.name, error)
        raise Internal("This model's configuration does not fit this server.") from None
