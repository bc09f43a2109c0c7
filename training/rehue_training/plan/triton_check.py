"""Compares a running Triton's answers with the ONNX file's.

A plan that is right by itself can still be served wrongly: with CUDA graphs and an output copy
stream together, Triton's TensorRT backend returns the answer of an earlier execution without an
error (docs/plans.md). Therefore several batch sizes are tried, each by different calls one after
another, so that an answer that belongs to an earlier call is noticed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from rehue_core import spec
from rehue_core.lab import UInt8
from rehue_training.plan import parity
from rehue_training.plan.parity import Network, Parity
from rehue_training.plan.served_model import ServedModel

Array = NDArray[Any]

BATCHES = (1, 5, 17, 32)
# Calls for each batch size. Two instances take turns, and each repeats its pairs of event set (3)
# and buffer set (2) after six executions.
CALLS = 12
CALL_TIMEOUT = 60.0  # seconds


class WrongAnswers(ValueError):
    """Triton's answers are not the ONNX file's; the message says which and how far they are."""


class TritonUnreachable(RuntimeError):
    """Triton did not answer a call; the message holds its reason."""


@dataclass(frozen=True)
class TritonParity:
    """Distances of Triton's answers to the ONNX file's, in Lab units; the worst photograph's."""

    calls: int
    batches: tuple[int, ...]
    ab_mean: float  # absolute, over the ab field
    ab_largest: float

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.batches))
        return (
            f"{self.calls} calls in batches of {sizes}: ab {self.ab_mean:.4f} in the mean and "
            f"{self.ab_largest:.3f} at most from the ONNX file's"
        )


def compare_triton(
    url: str, model: ServedModel, photographs: Sequence[UInt8], tolerance: Parity
) -> TritonParity:
    """Compares a model served by a running Triton with its ONNX file on this machine's CPU.

    Args:
        url: Triton's gRPC address, such as "127.0.0.1:8001".
        photographs: HWC uint8 sRGB.
        tolerance: of the ab field, for each photograph.

    Raises:
        WrongAnswers: an answer is beyond the tolerance.
        TritonUnreachable: Triton does not answer.
        ValueError: the photographs are too alike to tell their answers apart.
    """
    inputs = vary_inputs(parity.prepare_inputs(photographs, model.contract))
    answers = np.asarray(parity.load_onnx_network(model.onnx_path)(inputs), np.float32)
    answers *= model.contract.ab_scale
    _refuse_alike(answers, tolerance)
    with triton_grpc.InferenceServerClient(url) as client:
        sizes = choose_batches(_read_largest_batch(client, model.name))
        network = _open_model(client, model.name)
        distances = [
            _compare_calls(model, network, size, inputs, answers, tolerance) for size in sizes
        ]
    worst = np.max(distances, axis=0)
    return TritonParity(CALLS * len(sizes), sizes, float(worst[0]), float(worst[1]))


def vary_inputs(prepared: Array) -> Array:
    """Makes `CALLS` different inputs (N1HW) of prepared photographs: mirrored and shifted."""
    count, _, height, _ = prepared.shape
    made = []
    for number in range(CALLS):
        mirrored, shifted = (number // count) % 4, number // (4 * count)
        picture = prepared[number % count, :, :: -1 if mirrored & 1 else 1]
        picture = picture[:, :, :: -1 if mirrored & 2 else 1]
        made.append(np.roll(picture, shifted * height // CALLS, axis=1))
    return np.stack(made)


def choose_batches(largest: int) -> tuple[int, ...]:
    """Returns the batch sizes to try: those of `BATCHES` that the model allows, and its largest."""
    return tuple(sorted({size for size in BATCHES if size < largest} | {largest}))


def _refuse_alike(answers: Array, tolerance: Parity) -> None:
    for one, other in combinations(range(len(answers)), 2):
        if np.abs(answers[one] - answers[other]).mean() <= 2 * tolerance.ab_mean:
            raise ValueError(
                "the photographs are too similar to tell their outputs apart: "
                "choose others (--photos)"
            )


def _read_largest_batch(client: Any, name: str) -> int:
    """Returns the largest batch that Triton takes: on a CPU it is smaller than on a GPU."""
    try:
        config = client.get_model_config(name, client_timeout=CALL_TIMEOUT).config
    except InferenceServerException as error:
        raise TritonUnreachable(f"Triton does not answer for {name}: {error}") from None
    return spec.parse_model_contract(config).max_batch


def _open_model(client: Any, name: str) -> Network:
    def infer(counts: Array) -> Array:
        tensor = triton_grpc.InferInput(spec.INPUT, counts.shape, np_to_triton_dtype(counts.dtype))
        tensor.set_data_from_numpy(counts)
        try:
            answer = client.infer(name, [tensor], client_timeout=CALL_TIMEOUT)
        except InferenceServerException as error:
            raise TritonUnreachable(f"Triton does not answer for {name}: {error}") from None
        return np.asarray(answer.as_numpy(spec.OUTPUT))

    return infer


def _compare_calls(
    model: ServedModel,
    network: Network,
    size: int,
    inputs: Array,
    answers: Array,
    tolerance: Parity,
) -> tuple[float, float]:
    """Makes the calls of one batch size; returns the worst mean and the largest ab distance."""
    # No photograph stands at the same place in two calls.
    calls = [(first + np.arange(size)) % len(inputs) for first in range(CALLS)]
    means, largest = [], []
    for number, rows in enumerate(calls):
        answer = network(inputs[rows]).astype(np.float32) * model.contract.ab_scale
        if answer.shape != answers[rows].shape:
            raise WrongAnswers(
                f"{model.name} through Triton is refused: at a batch of {size} its ab has the "
                f"shape {answer.shape}, the ONNX file's {answers[rows].shape}"
            )
        distances = np.abs(answer - answers[rows]).reshape(size, -1)
        means.append(float(distances.mean(axis=1).max()))
        largest.append(float(distances.max()))
        # A NaN is beyond every limit.
        if not (means[-1] <= tolerance.ab_mean and largest[-1] <= tolerance.ab_largest):
            earlier = _find_call(answer, answers, calls[:number], tolerance)
            belongs = "" if earlier is None else f"; it is the answer to call {earlier + 1}"
            raise WrongAnswers(
                f"{model.name} through Triton is refused: at a batch of {size}, call {number + 1}, "
                f"ab is {means[-1]:.4g} away from the ONNX file's in the mean (at most "
                f"{tolerance.ab_mean:.4g} is allowed) and {largest[-1]:.4g} at most (at most "
                f"{tolerance.ab_largest:.4g} is allowed){belongs}"
            )
    return max(means), max(largest)


def _find_call(
    answer: Array, answers: Array, calls: Sequence[Array], tolerance: Parity
) -> int | None:
    """The latest call to which this answer belongs."""
    for number in reversed(range(len(calls))):
        if np.abs(answer - answers[calls[number]]).mean() <= tolerance.ab_mean:
            return number
    return None
