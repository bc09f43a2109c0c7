"""The models that a set of Tritons serves: their contracts and their list."""

import asyncio
import json
import logging
from collections.abc import Awaitable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from rehue_core.colorize import ModelSpec
from rehue_core.spec import parse_model_contract
from rehue_serve.endpoints import Endpoints
from rehue_serve.errors import Internal, RehueError, Unavailable, UnknownModel

log = logging.getLogger(__name__)

SPEC_MAX_AGE = 10.0  # seconds for which a model's contract is cached
CALL_TIMEOUT = 5.0  # seconds


class ModelCatalog:
    """Model contracts and states, read from any Triton that answers."""

    def __init__(self, endpoints: Endpoints, *, default_model: str) -> None:
        self._endpoints = endpoints
        self._default_model = default_model
        self._specs: dict[str, tuple[float, ModelSpec]] = {}  # with the loop time of reading

    async def get_spec(self, model: str) -> ModelSpec:
        """Return a model's contract, at most 10 s old while a Triton answers.

        Raises:
            UnknownModel: no Triton has a model of this name.
            Unavailable: no Triton answers.
            Internal: the model does not keep the contract.
        """
        now = asyncio.get_running_loop().time()
        read_at, spec = self._specs.get(model, (0.0, None))
        if spec is not None and now - read_at < SPEC_MAX_AGE:
            return spec
        try:
            spec = await self._read_spec(model)
        except Unavailable:
            if spec is None:
                raise
        self._specs[model] = (now, spec)
        return spec

    def forget(self, model: str) -> None:
        """Drop a cached contract: the model was unloaded."""
        self._specs.pop(model, None)

    async def _read_spec(self, model: str) -> ModelSpec:
        request = service_pb2.ModelConfigRequest(name=model)
        endpoints = self._endpoints.list_available()
        unknown = 0
        for endpoint in endpoints:
            try:
                response = await _await_call(
                    endpoint.stub.ModelConfig(request, timeout=CALL_TIMEOUT)
                )
            except grpc.aio.AioRpcError as error:
                unknown += error.code() in (
                    grpc.StatusCode.NOT_FOUND,
                    grpc.StatusCode.INVALID_ARGUMENT,
                )
                continue
            if response is not None:
                return _parse_contract(response.config)
        # The default model exists: a Triton that does not know it has yet to load it.
        if unknown and unknown == len(endpoints) and model != self._default_model:
            self.forget(model)
            raise UnknownModel(f"There is no model {json.dumps(model[:100])}; see /v1/models.")
        raise no_endpoint_available()

    async def list_models(self) -> list[dict[str, object]]:
        """Return name, version, state and description of each model.

        They come from the first endpoint that answers.

        Raises:
            Unavailable: no Triton answers.
        """
        request = service_pb2.RepositoryIndexRequest()
        for endpoint in self._endpoints.list_available():
            try:
                response = await _await_call(
                    endpoint.stub.RepositoryIndex(request, timeout=CALL_TIMEOUT)
                )
            except grpc.aio.AioRpcError:
                continue
            if response is None:
                continue
            models = sorted(response.models, key=lambda model: (model.name, model.version))
            return [
                {
                    "name": model.name,
                    "version": model.version,
                    "state": model.state,
                    "default": model.name == self._default_model,
                    "description": await self._get_description(model),
                }
                for model in models
            ]
        raise no_endpoint_available()

    async def _get_description(self, model: Any) -> str:
        """Return a model's description; empty if it has none or cannot be read."""
        if model.state != "READY":
            return ""
        try:
            return (await self.get_spec(model.name)).description
        except RehueError:
            return ""


def no_endpoint_available() -> Unavailable:
    """Return the error for a request that no Triton can answer."""
    return Unavailable("No model server is available at the moment.", retry_after=1.0)


async def _await_call(call: Awaitable[Any]) -> Any:
    """Await a call to Triton. None if its channel was closed meanwhile.

    gRPC raises CancelledError then, as if the caller's own task were cancelled.
    """
    try:
        return await call
    except asyncio.CancelledError:
        if asyncio.current_task().cancelling():  # type: ignore[union-attr]
            raise
        return None


def _parse_contract(config: Any) -> ModelSpec:
    try:
        return parse_model_contract(config)
    except ValueError as error:
        log.error("model %s breaks the contract: %s", config.name, error)
        raise Internal("This model's configuration does not fit this server.") from None
