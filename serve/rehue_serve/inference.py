"""One inference call to one Triton, its tensors in the messages or in shared memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype

from rehue_core.colorize import ModelSpec, Tensor
from rehue_core.spec import INPUT, OUTPUT
from rehue_serve.endpoints import Endpoint
from rehue_serve.shared_memory import (
    SharedFile,
    SharedMemory,
    count_input_bytes,
    count_output_bytes,
    is_unknown_region,
)


@dataclass(frozen=True)
class InferenceResult:
    """A model's response to one batch.

    Attributes:
        outputs: N2hw of the model's output type.
        version: the model's version.
    """

    outputs: Tensor
    version: str


async def infer_batch(
    endpoint: Endpoint,
    spec: ModelSpec,
    inputs: Sequence[Tensor],
    *,
    timeout: float,
    metadata: Sequence[tuple[str, str]] = (),
    memory: SharedMemory | None = None,
) -> InferenceResult:
    """Run the network on a batch of photographs, in one call.

    Args:
        inputs: 1HW each, of the model's input type; at most ``spec.max_batch``.
        timeout: seconds.
        metadata: gRPC metadata of the call.
        memory: pass tensors in shared memory, where the endpoint can.

    Raises:
        grpc.aio.AioRpcError: the call failed.
        ValueError, IndexError: the response breaks the contract.
    """
    request = _build_request(spec, len(inputs))
    file = await memory.acquire(endpoint, spec) if memory else None
    if memory is None or file is None:
        request.raw_input_contents.append(b"".join(input.tobytes() for input in inputs))
        response = await endpoint.stub.ModelInfer(request, timeout=timeout, metadata=metadata)
        return _parse_response(response, response.raw_output_contents[0], spec, len(inputs))
    try:
        _write_inputs(request, spec, file, inputs)
        response = await endpoint.stub.ModelInfer(request, timeout=timeout, metadata=metadata)
        start = spec.max_batch * count_input_bytes(spec)
        data = file.data[start : start + len(inputs) * count_output_bytes(spec)]
        result = _parse_response(response, data, spec, len(inputs))
    except BaseException as error:  # cancelled too: Triton may still write into the file
        memory.discard(endpoint, file)
        if isinstance(error, grpc.aio.AioRpcError) and is_unknown_region(error.details() or ""):
            memory.forget(endpoint)
        raise
    memory.release(endpoint, spec, file)
    return result


def _build_request(spec: ModelSpec, batch_size: int) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=spec.name)
    tensor = request.inputs.add(name=INPUT, datatype=np_to_triton_dtype(spec.input_type))
    tensor.shape.extend((batch_size, 1, spec.height, spec.width))
    request.outputs.add(name=OUTPUT)
    return request


def _write_inputs(
    request: service_pb2.ModelInferRequest,
    spec: ModelSpec,
    file: SharedFile,
    inputs: Sequence[Tensor],
) -> None:
    """Write the inputs into the file, and the places of inputs and outputs into the request."""
    size = count_input_bytes(spec)
    for number, input in enumerate(inputs):
        file.data[number * size : (number + 1) * size] = input.tobytes()
    places = (
        (request.inputs[0], 0, len(inputs) * size),
        (request.outputs[0], spec.max_batch * size, len(inputs) * count_output_bytes(spec)),
    )
    for tensor, offset, length in places:
        tensor.parameters["shared_memory_region"].string_param = file.name
        tensor.parameters["shared_memory_byte_size"].int64_param = length
        tensor.parameters["shared_memory_offset"].int64_param = offset


def _parse_response(
    response: service_pb2.ModelInferResponse, data: bytes, spec: ModelSpec, batch_size: int
) -> InferenceResult:
    shape = tuple(response.outputs[0].shape)
    outputs: Tensor = np.frombuffer(data, spec.output_type).reshape(shape)
    if len(outputs) != batch_size:
        raise ValueError(f"{len(outputs)} outputs for {batch_size} photographs")
    return InferenceResult(outputs, response.model_version)
