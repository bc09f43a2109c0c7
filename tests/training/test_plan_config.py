"""`configs/gpu.pbtxt`: every field read by Triton's own parser, most of it run by a real Triton."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpc
from google.protobuf import text_format
from paths import MODELS
from plan_models import copy_model, infer, replace_backend
from tritonclient.grpc import model_config_pb2

from rehue_serve.embedded import EmbeddedTriton
from rehue_training.plan.served_model import load_served_model, refuse_unsafe_config

NAMES = ["rehue", "rehue-free", "seed"]
ONNX_TYPES = {
    "tensor(uint8)": model_config_pb2.TYPE_UINT8,
    "tensor(float16)": model_config_pb2.TYPE_FP16,
}
# All that a Triton without a GPU cannot take as it stands.


def read_config(name: str, kind: str = "gpu") -> model_config_pb2.ModelConfig:
    text = (MODELS / name / "configs" / f"{kind}.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def create_repository(path: Path) -> Path:
    """The model repository as a GPU node has it, with the ONNX file in the plan's place."""
    for name in NAMES:
        (path / name / "1").mkdir(parents=True)
        (path / name / "configs").mkdir()
        shutil.copy(MODELS / name / "1" / "model.onnx", path / name / "1" / "model.onnx")
        text = (MODELS / name / "configs" / "gpu.pbtxt").read_text()
        (path / name / "configs" / "gpu.pbtxt").write_text(replace_backend(text))
    return path


@pytest.fixture(scope="module")
def gpu_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    repository = create_repository(tmp_path_factory.mktemp("repository"))
    for name in NAMES:
        (repository / name / "1" / "model.onnx").rename(repository / name / "1" / "model.plan")
    with EmbeddedTriton(repository, threads=1, config_name="gpu") as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_configuration_serves_the_onnx_files_colours(
    gpu_triton: EmbeddedTriton, triton: EmbeddedTriton, name: str
) -> None:
    config = read_config(name)
    counts = np.random.default_rng(0).integers(0, 256, (3, *config.input[0].dims), np.uint8)
    session = onnxruntime.InferenceSession(MODELS / name / "1" / "model.onnx")
    (expected,) = session.run(["ab"], {"lightness": counts})
    for server in (gpu_triton, triton):
        (found,) = infer(server.url, name, counts)
        np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_triton_keeps_every_field(gpu_triton: EmbeddedTriton, name: str) -> None:
    """What a running Triton says of its configuration is the file's, the swapped lines apart."""
    with grpc.InferenceServerClient(gpu_triton.url) as client:
        running = client.get_model_config(name).config
    # What it fills in itself: the greatest batch, and the swapped backend's own.
    running.dynamic_batching.ClearField("preferred_batch_size")
    running.ClearField("platform")
    running.ClearField("runtime")
    written = text_format.Parse(
        replace_backend((MODELS / name / "configs" / "gpu.pbtxt").read_text()),
        model_config_pb2.ModelConfig(),
    )
    for field in written.DESCRIPTOR.fields:
        if field.name == "instance_group":
            (there,), (here,) = running.instance_group, written.instance_group
            assert (there.kind, there.count) == (here.kind, here.count)
        else:
            assert getattr(running, field.name) == getattr(written, field.name), field.name


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_the_cpu_configurations(name: str) -> None:
    gpu, cpu = read_config(name), read_config(name, "cpu")
    assert gpu.input == cpu.input
    assert gpu.output == cpu.output
    assert dict(gpu.parameters) == dict(cpu.parameters)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_the_onnx_files(name: str) -> None:
    session = onnxruntime.InferenceSession(MODELS / name / "1" / "model.onnx")
    for found, written in (
        (session.get_inputs(), read_config(name).input),
        (session.get_outputs(), read_config(name).output),
    ):
        assert [(item.name, ONNX_TYPES[item.type], item.shape[1:]) for item in found] == [
            (item.name, item.data_type, list(item.dims)) for item in written
        ]
        assert isinstance(found[0].shape[0], str)  # any batch


@pytest.mark.parametrize("name", NAMES)
def test_every_batch_has_a_cuda_graph_and_every_profile_a_shape(name: str) -> None:
    """As Triton's TensorRT backend looks graphs up: by the batch and the whole shape.

    A lower bound that does not name the input's shape has the graph's own (SetCudaGraphShape):
    it matches no lesser batch.
    """
    config = read_config(name)
    specs = config.optimization.cuda.graph_spec
    assert [spec.batch_size for spec in specs] == list(range(1, config.max_batch_size + 1))
    assert not any(spec.HasField("graph_lower_bound") or spec.input for spec in specs)
    names = list(config.instance_group[0].profile)
    profiles = load_served_model(MODELS / name).profiles
    assert names == [str(number) for number in range(len(profiles))]
    assert [profile.batches for profile in profiles] == [(1, 1, 16), (17, 32, 32)]
    assert {(profile.input_name, profile.shape) for profile in profiles} == {
        ("lightness", tuple(config.input[0].dims))
    }


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_has_the_real_shapes_and_both_ends_of_the_batches(name: str) -> None:
    config = read_config(name)
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, config.max_batch_size]
    for warmup in config.model_warmup:
        assert warmup.inputs["lightness"].dims == config.input[0].dims
        assert warmup.inputs["lightness"].data_type == config.input[0].data_type


@pytest.mark.parametrize("kind", ["gpu", "cpu"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_makes_triton_slow_or_wrong(name: str, kind: str) -> None:
    refuse_unsafe_config(read_config(name, kind))


@pytest.mark.parametrize(
    ("unsafe", "named"),
    [
        ("optimization { cuda { output_copy_stream: true } }", "graphs and output_copy_stream"),
        ("dynamic_batching { priority_levels: 2 }", "priority_levels"),
        ("dynamic_batching { default_queue_policy { max_queue_size: 256 } }", "queue_policy"),
        ("dynamic_batching { priority_queue_policy { key: 1 value { } } }", "queue_policy"),
        ("dynamic_batching { preserve_ordering: true }", "preserve_ordering"),
    ],
)
def test_what_makes_triton_slow_or_wrong_is_refused(
    unsafe: str, named: str, tmp_path: Path
) -> None:
    """By `rehue plan`, in any model's configuration."""
    config, folder = read_config("rehue"), copy_model(tmp_path)
    text_format.Merge(unsafe, config)
    (folder / "configs" / "gpu.pbtxt").write_text(text_format.MessageToString(config))
    with pytest.raises(ValueError, match=rf"gpu\.pbtxt: .*{named}"):
        load_served_model(folder)
