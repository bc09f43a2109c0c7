"""The gRPC method ListModels, on a real Triton."""

import grpc
import pytest
from serving import serve_grpc, serve_http, start_service

from rehue_client.v1 import rehue_pb2
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.keys import ApiKeys

SECRET = "/secret/path"


async def test_models_are_those_of_http(triton: EmbeddedTriton) -> None:
    async with start_service(triton.url) as service:
        async with serve_http(service) as client:
            expected = (await client.get("/v1/models")).json()["models"]
        async with serve_grpc(service) as stub:
            answer = await stub.ListModels(rehue_pb2.ListModelsRequest())
    listed = [
        {
            "name": m.name,
            "version": m.version,
            "state": m.state,
            "default": m.default,
            "description": m.description,
        }
        for m in answer.models
    ]
    assert listed == expected
    assert [model["name"] for model in listed if model["default"]] == ["rehue"]
    assert all(model["description"].endswith(".") for model in listed)


async def test_unexpected_error_is_internal_and_says_nothing(
    triton: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", SECRET)

    monkeypatch.setattr(ApiKeys, "authenticate", fail)
    async with start_service(triton.url) as service, serve_grpc(service) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListModels(rehue_pb2.ListModelsRequest())
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert SECRET not in str(caught.value)
