"""Plans: built, compared, kept, refused; with a stand-in for TensorRT's builder only."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from plan_models import (
    FAST_OPTIONS,
    check_plan,
    compare_plan,
    copy_model,
    ensure_plan,
    scale_output,
)
from standin import H100, HostCuda, tensorrt

import rehue_training.plan.tensorrt
from rehue_training.plan import identity, parity, plans, precision
from rehue_training.plan.gpu_runners import make_product_onnx
from rehue_training.plan.identity import PlanRefused
from rehue_training.plan.served_model import find_served_models, load_served_model
from rehue_training.plan.tensorrt import load_on_first_gpu
from rehue_training.plan.tensorrt_package import (
    BuildFailed,
    NoTensorRT,
    read_library_version,
    refuse_other_release,
)  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model as it is committed, but quick: of one greatest batch of 2."""
    return copy_model(tmp_path / "repository")


def test_a_plan_is_built_once(model: Path) -> None:
    engine = tensorrt()
    first, second = (ensure_plan(model, engine, FAST_OPTIONS) for _ in range(2))
    assert (first.built, second.built, len(engine.module.builds)) == (True, False, 1)
    assert "does not exist" in str(first.refusal)
    assert second.refusal is None
    record = second.record
    assert record.identity.gpu == H100.name
    assert record.identity.onnx == identity.hash_file(model / "1" / "model.onnx")
    assert record.identity.profiles == (
        "lightness 1x1x256x256/1x1x256x256/1x1x256x256; "
        "lightness 2x1x256x256/2x1x256x256/2x1x256x256"
    )
    assert record.built.endswith("+00:00")
    assert record.parity["ciede2000"] < parity.TOLERANCE.ciede2000
    assert engine.cuda.in_use == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", ["driver", "gpu", "tensorrt", "onnx", "precision", "max batch"])
def test_what_changed_is_reported_and_rebuilt(model: Path, part: str) -> None:
    ensure_plan(model, tensorrt(), FAST_OPTIONS)
    engine, options = tensorrt(), FAST_OPTIONS
    if part == "driver":
        engine = tensorrt(replace(H100, driver="600.1"))
    elif part == "gpu":
        engine = tensorrt(replace(H100, name="NVIDIA A10", compute_capability="8.6"))
    elif part == "tensorrt":
        engine = tensorrt(version="10.16.1.11")
    elif part == "precision":
        options = replace(FAST_OPTIONS, precision="fp32")
    elif part == "onnx":
        scale_model(model / "1" / "model.onnx", 0.9)
    else:
        config = model / "configs" / "gpu.pbtxt"
        config.write_text(config.read_text().replace("max_batch_size: 2", "max_batch_size: 3"))
    with pytest.raises(PlanRefused, match=f"(?i){part}|profiles"):
        check_plan(model, engine, options)
    outcome = ensure_plan(model, engine, options)
    assert outcome.built
    assert "here it is" in str(outcome.refusal)
    assert check_plan(model, engine, options).record == outcome.record


def scale_model(path: Path, factor: float) -> None:
    """Replace a network by one with scaled chroma."""
    path.write_bytes(scale_output(path.read_bytes(), factor))


def test_other_code_for_the_precision_makes_another_plan(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_plan(model, tensorrt(), FAST_OPTIONS)
    monkeypatch.setattr(precision, "hash_converter_code", lambda: "changed")
    with pytest.raises(PlanRefused, match=r"precision was fp16 as of .*, here it is fp16 as of"):
        check_plan(model, tensorrt(), FAST_OPTIONS)


@pytest.mark.parametrize("factor", [1.5, np.nan])
def test_a_plan_whose_colours_are_off_is_refused(model: Path, factor: float) -> None:
    good = ensure_plan(model, tensorrt(), FAST_OPTIONS)
    other = tensorrt(replace(H100, driver="600.1"), change=lambda it: scale_output(it, factor))
    with pytest.raises(PlanRefused, match=r"rehue is refused: ab_mean is .* at most 0\.1 is all"):
        ensure_plan(model, other, FAST_OPTIONS)
    assert check_plan(model, tensorrt(), FAST_OPTIONS).record == good.record


def test_a_plan_of_other_tensors_is_refused(model: Path) -> None:
    """Triton would not load it; the colours alone do not tell."""

    def single(content: bytes) -> bytes:
        proto = onnx.load_model_from_string(content)
        proto.graph.node[-1].attribute[0].i = onnx.TensorProto.FLOAT
        proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        return bytes(proto.SerializeToString())

    with pytest.raises(PlanRefused, match="ab is float32, its configuration says float16"):
        ensure_plan(model, tensorrt(change=single), FAST_OPTIONS)


def test_profiles_are_as_many_as_the_configuration_names(model: Path) -> None:
    """Each covers the batches that Triton would run with it, and no others."""
    config = model / "configs" / "gpu.pbtxt"
    text = config.read_text().replace("max_batch_size: 2", "max_batch_size: 32")
    for names, expected in (
        ('"0"', [(1, 32, 32)]),
        ('"0", "1"', [(1, 1, 16), (17, 32, 32)]),
        ('"0", "1", "2"', [(1, 1, 3), (4, 6, 19), (20, 32, 32)]),
    ):
        config.write_text(text.replace('profile: [ "0", "1" ]', f"profile: [ {names} ]"))
        profiles = load_served_model(model).profiles
        assert [profile.batches for profile in profiles] == expected
        tuned = [profile.batches[1] for profile in profiles]
        for batch in range(1, 33):  # as tensorrt_backend's GetMostOptimizedProfile chooses
            distances = [abs(size - batch) for size in tuned]
            least, _, greatest = profiles[distances.index(min(distances))].batches
            assert least <= batch <= greatest
    config.write_text(config.read_text().replace("max_batch_size: 32", "max_batch_size: 1"))
    assert [profile.batches for profile in load_served_model(model).profiles] == [(1, 1, 1)] * 3


def test_a_plan_of_other_profiles_is_refused(model: Path) -> None:
    engine, config = tensorrt(), model / "configs" / "gpu.pbtxt"
    ensure_plan(model, engine, FAST_OPTIONS)
    config.write_text(config.read_text().replace('profile: [ "0", "1" ]', 'profile: [ "0" ]'))
    with pytest.raises(PlanRefused, match="it has 2 optimisation profiles instead of 1"):
        compare_plan(model, engine, (model / "1" / "model.plan").read_bytes(), FAST_OPTIONS)


def test_a_build_that_fails_leaves_the_old_plan(model: Path) -> None:
    good = ensure_plan(model, tensorrt(), FAST_OPTIONS)
    with pytest.raises(BuildFailed, match="could not build"):
        ensure_plan(model, tensorrt(version="12", change=lambda it: None), FAST_OPTIONS)
    assert check_plan(model, tensorrt(), FAST_OPTIONS).record == good.record


def test_an_onnx_file_that_tensorrt_does_not_take_is_reported(model: Path) -> None:
    path = model / "1" / "model.onnx"
    proto = onnx.load(path)
    proto.graph.node[-1].op_type = "Nonsense"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(BuildFailed, match="does not take the ONNX file"):
        ensure_plan(model, tensorrt(), replace(FAST_OPTIONS, precision="fp32"))


def test_file_that_is_no_onnx_file_is_reported(model: Path) -> None:
    path = model / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="the ONNX file is cut short or is none"):
        ensure_plan(model, tensorrt(), FAST_OPTIONS)


def test_invalid_configuration_is_refused(model: Path) -> None:
    (model / "configs" / "gpu.pbtxt").write_text('name: "rehue" max_batch: 3')
    with pytest.raises(ValueError, match=r"gpu\.pbtxt is no model configuration: .*max_batch"):
        ensure_plan(model, tensorrt(), FAST_OPTIONS)


@pytest.mark.parametrize(
    ("null", "message"),
    [
        ("Builder", r"11\.1\.0\.106 does not start on NVIDIA H100 .* with driver 580\.82\.07"),
        ("Runtime", "does not start on NVIDIA H100"),
        ("context", "has no room to run the plan in"),
    ],
)
def test_missing_tensorrt_objects_are_reported(model: Path, null: str, message: str) -> None:
    """A driver too old for the library's CUDA, and a GPU that is full."""
    good = ensure_plan(model, tensorrt(), FAST_OPTIONS)
    other = tensorrt(replace(H100, driver="580.82.07"), null=null)
    with pytest.raises(BuildFailed, match=message):
        ensure_plan(model, other, replace(FAST_OPTIONS, compatibility="ampere-plus"))
    assert check_plan(model, tensorrt(), FAST_OPTIONS).record == good.record


def test_builder_gets_every_option(model: Path) -> None:
    engine = tensorrt()
    ensure_plan(model, engine, replace(FAST_OPTIONS, compatibility="ampere-plus", level=1))
    ((network, config),) = engine.module.builds
    assert network.flags == 1 << engine.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert network.onnx == precision.convert_precision(
        (model / "1" / "model.onnx").read_bytes(), "fp16"
    )
    assert config.flags == {"TF32"}
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert (config.builder_optimization_level, config.tactic_sources) == (1, None)
    shape = (1, 256, 256)
    assert [profile.shapes["lightness"] for profile in config.profiles] == [
        ((1, *shape), (1, *shape), (1, *shape)),
        ((2, *shape), (2, *shape), (2, *shape)),
    ]


def test_tensorrt_8_gets_what_its_onnx_parser_needs(model: Path) -> None:
    engine = tensorrt(version="8.6.0")
    ensure_plan(model, engine, FAST_OPTIONS)
    ((network, config),) = engine.module.builds
    assert network.flags == 1 << engine.module.NetworkDefinitionCreationFlag.EXPLICIT_BATCH
    assert config.flags == {"TF32", "FP16"}
    assert config.builder_optimization_level == 3
    assert config.tactic_sources == 0b11000
    with pytest.raises(BuildFailed, match=r"8\.6\.0 has no compatibility level same-compute"):
        ensure_plan(model, engine, replace(FAST_OPTIONS, compatibility="same-compute-capability"))


def test_fp32_is_not_tf32(model: Path) -> None:
    engine = tensorrt()
    ensure_plan(model, engine, replace(FAST_OPTIONS, precision="fp32"))
    assert engine.module.builds[0][1].flags == set()


@pytest.mark.parametrize("cache", [None, "cache"])
def test_what_was_timed_is_kept_for_other_weights(
    model: Path, tmp_path: Path, cache: str | None
) -> None:
    options = replace(FAST_OPTIONS, cache=tmp_path / cache if cache else None)
    ensure_plan(model, tensorrt(), options)
    scale_model(model / "1" / "model.onnx", 0.9)
    ensure_plan(model, tensorrt(), options)
    ensure_plan(model, tensorrt(replace(H100, driver="600.1")), options)
    kept = (options.cache or model / "1").glob("model.plan.timing-????????????????")
    assert sorted(path.read_bytes() for path in kept) == [b"timed;", b"timed;timed;"]


def test_an_onnx_file_replaced_while_another_builds_is_not_built(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan would have the identity of the one before."""

    @contextmanager
    def locked(path: Path) -> Iterator[None]:
        scale_model(model / "1" / "model.onnx", 0.9)
        yield

    monkeypatch.setattr(plans, "lock_file", locked)
    with pytest.raises(PlanRefused, match="the ONNX file of rehue was replaced meanwhile"):
        ensure_plan(model, tensorrt(), FAST_OPTIONS)
    assert not (model / "1" / "model.plan").exists()


def test_a_plan_beyond_todays_tolerance_is_built_again(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ensure_plan(model, tensorrt(), FAST_OPTIONS).record.parity["ab_largest"]
    stricter = replace(parity.TOLERANCE, ab_largest=found / 2)
    monkeypatch.setattr(parity, "TOLERANCE", stricter)
    with pytest.raises(PlanRefused, match="no longer near enough: ab_largest is"):
        check_plan(model, tensorrt(), FAST_OPTIONS)
    with pytest.raises(PlanRefused, match=r"the plan built from .* is refused: ab_largest is"):
        ensure_plan(model, tensorrt(), FAST_OPTIONS)


@pytest.mark.parametrize("null", ["", "timing cache"])
def test_a_timing_cache_of_another_gpu_is_left(null: str) -> None:
    """TensorRT does not attach it, or makes none of it."""
    built = tensorrt(null=null).build_plan(
        make_product_onnx(8), [], precision="fp32", timing_cache=b"of another GPU"
    )
    assert built.timing_cache == b"timed;"


def test_nodes_with_unlike_gpus_share_a_cache(model: Path, tmp_path: Path) -> None:
    """Each node's own repository gets its own plan; the cache keeps both."""
    options = replace(FAST_OPTIONS, cache=tmp_path / "cache")
    nodes = [copy_model(tmp_path / name) for name in ("one", "two", "three")]
    a10 = replace(H100, name="NVIDIA A10", compute_capability="8.6")
    outcomes = [
        ensure_plan(node, tensorrt(gpu), options)
        for node, gpu in zip(nodes, (H100, a10, H100), strict=True)
    ]
    assert [outcome.built for outcome in outcomes] == [True, True, False]
    assert outcomes[0].record == outcomes[2].record
    for node, gpu in zip(nodes, (H100, a10, H100), strict=True):
        assert check_plan(node, tensorrt(gpu), options).record.identity.gpu == gpu.name


def test_gpus_that_may_share_a_plan_share_the_caches(model: Path, tmp_path: Path) -> None:
    options = replace(FAST_OPTIONS, cache=tmp_path / "cache", compatibility="ampere-plus")
    a10 = tensorrt(replace(H100, name="NVIDIA A10", compute_capability="8.6"))
    assert ensure_plan(model, tensorrt(), options).built
    other = copy_model(tmp_path / "other")
    with pytest.raises(ValueError, match="at least one array"):  # compared there too, on none
        ensure_plan(other, a10, replace(options, photographs=list))
    assert not (other / "1" / "model.plan").exists()
    assert not ensure_plan(other, a10, options).built
    assert check_plan(other, a10, options).record.identity.gpu == H100.name


def test_models_are_those_with_a_gpu_configuration(model: Path) -> None:
    repository = model.parent
    (repository / "other" / "configs").mkdir(parents=True)
    assert [found.folder for found in find_served_models(repository)] == [model]
    with pytest.raises(ValueError, match="no other with configs"):
        find_served_models(repository, ["other"])


class Nvinfer:
    """libnvinfer's functions that tell its version."""

    def __init__(self, version: str) -> None:
        names = ("Major", "Minor", "Patch", "Build")
        for name, value in zip(names, version.split("."), strict=True):
            setattr(self, f"getInferLib{name}Version", lambda value=int(value): value)


class Nvinfer8:
    @staticmethod
    def getInferLibVersion() -> int:
        return 8601


def test_the_bindings_must_be_of_the_library() -> None:
    """Its major, minor and patch version; builds of one version have the same functions."""
    assert read_library_version(Nvinfer("11.1.0.106")) == "11.1.0.106"
    assert read_library_version(Nvinfer8()) == "8.6.1"
    for bindings, library in (("11.1.0.106", "11.1.0.106"), ("8.6.1", "8.6.1"),
                              ("11.1.0.106", "11.1.0.99"),
                              ("10.13.3.9.post1", "10.13.3.9")):  # fmt: skip
        refuse_other_release(bindings, library)
    for other in ("11.1.1.106", "11.2.0.106", "12.1.0.106"):
        with pytest.raises(BuildFailed, match=rf"are 11\.1\.0\.106, but libnvinfer is {other}: "):
            refuse_other_release("11.1.0.106", other)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="for where TensorRT is not whole")
def test_the_bindings_alone_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehue_training.plan.tensorrt, "Cuda", HostCuda)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Nvinfer("11.1.0.99"))
    with pytest.raises(NoTensorRT, match="is not installed"):
        load_on_first_gpu()
    monkeypatch.syspath_prepend(tmp_path)
    code = "__version__ = '11.1.0.106'\nclass Logger(int):\n    WARNING = 2\n"
    (tmp_path / "tensorrt_bindings.py").write_text(code)
    assert load_on_first_gpu().version == "11.1.0.99"  # the library's: it builds
