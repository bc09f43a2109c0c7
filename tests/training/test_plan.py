"""Plans: built, compared, kept, refused; with a stand-in for TensorRT's builder only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
    scale_model,
    scale_output,
)
from standin import H100, create_standin

from rehue_training.plan import identity, parity, plans, precision
from rehue_training.plan.identity import PlanRefused
from rehue_training.plan.served_model import find_served_models, load_served_model
from rehue_training.plan.tensorrt_package import (
    BuildFailed,
)  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a committed model, with a maximum batch of 2, so that plans build fast."""
    return copy_model(tmp_path / "repository")


def test_a_plan_is_built_once(model: Path) -> None:
    engine = create_standin()
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
    ensure_plan(model, create_standin(), FAST_OPTIONS)
    engine, options = create_standin(), FAST_OPTIONS
    if part == "driver":
        engine = create_standin(replace(H100, driver="600.1"))
    elif part == "gpu":
        engine = create_standin(replace(H100, name="NVIDIA A10", compute_capability="8.6"))
    elif part == "tensorrt":
        engine = create_standin(version="10.16.1.11")
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


def test_other_code_for_the_precision_makes_another_plan(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_plan(model, create_standin(), FAST_OPTIONS)
    monkeypatch.setattr(precision, "hash_converter_code", lambda: "changed")
    with pytest.raises(PlanRefused, match=r"precision was fp16 as of .*, here it is fp16 as of"):
        check_plan(model, create_standin(), FAST_OPTIONS)


@pytest.mark.parametrize("factor", [1.5, np.nan])
def test_a_plan_whose_colours_are_off_is_refused(model: Path, factor: float) -> None:
    good = ensure_plan(model, create_standin(), FAST_OPTIONS)
    other = create_standin(
        replace(H100, driver="600.1"), change=lambda it: scale_output(it, factor)
    )
    with pytest.raises(PlanRefused, match=r"rehue is refused: ab_mean is .* at most 0\.1 is all"):
        ensure_plan(model, other, FAST_OPTIONS)
    assert check_plan(model, create_standin(), FAST_OPTIONS).record == good.record


def test_a_plan_of_other_tensors_is_refused(model: Path) -> None:
    """Triton would not load it; the colours alone do not tell."""

    def single(content: bytes) -> bytes:
        proto = onnx.load_model_from_string(content)
        proto.graph.node[-1].attribute[0].i = onnx.TensorProto.FLOAT
        proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        return bytes(proto.SerializeToString())

    with pytest.raises(PlanRefused, match="ab is float32, its configuration says float16"):
        ensure_plan(model, create_standin(change=single), FAST_OPTIONS)


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
    engine, config = create_standin(), model / "configs" / "gpu.pbtxt"
    ensure_plan(model, engine, FAST_OPTIONS)
    config.write_text(config.read_text().replace('profile: [ "0", "1" ]', 'profile: [ "0" ]'))
    with pytest.raises(PlanRefused, match="it has 2 optimisation profiles instead of 1"):
        compare_plan(model, engine, (model / "1" / "model.plan").read_bytes(), FAST_OPTIONS)


def test_a_build_that_fails_leaves_the_old_plan(model: Path) -> None:
    good = ensure_plan(model, create_standin(), FAST_OPTIONS)
    with pytest.raises(BuildFailed, match="could not build"):
        ensure_plan(model, create_standin(version="12", change=lambda it: None), FAST_OPTIONS)
    assert check_plan(model, create_standin(), FAST_OPTIONS).record == good.record


def test_an_onnx_file_that_tensorrt_does_not_take_is_reported(model: Path) -> None:
    path = model / "1" / "model.onnx"
    proto = onnx.load(path)
    proto.graph.node[-1].op_type = "Nonsense"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(BuildFailed, match="does not take the ONNX file"):
        ensure_plan(model, create_standin(), replace(FAST_OPTIONS, precision="fp32"))


def test_file_that_is_no_onnx_file_is_reported(model: Path) -> None:
    path = model / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="the ONNX file is truncated, or not an ONNX file"):
        ensure_plan(model, create_standin(), FAST_OPTIONS)


def test_invalid_configuration_is_refused(model: Path) -> None:
    (model / "configs" / "gpu.pbtxt").write_text('name: "rehue" max_batch: 3')
    with pytest.raises(ValueError, match=r"gpu\.pbtxt is not a model configuration: .*max_batch"):
        ensure_plan(model, create_standin(), FAST_OPTIONS)


@pytest.mark.parametrize(
    ("null", "message"),
    [
        ("Builder", r"11\.1\.0\.106 does not start on NVIDIA H100 .* with driver 580\.82\.07"),
        ("Runtime", "does not start on NVIDIA H100"),
        ("context", "has not enough memory to run the plan"),
    ],
)
def test_missing_tensorrt_objects_are_reported(model: Path, null: str, message: str) -> None:
    """A driver too old for the library's CUDA, and a GPU that is full."""
    good = ensure_plan(model, create_standin(), FAST_OPTIONS)
    other = create_standin(replace(H100, driver="580.82.07"), null=null)
    with pytest.raises(BuildFailed, match=message):
        ensure_plan(model, other, replace(FAST_OPTIONS, compatibility="ampere-plus"))
    assert check_plan(model, create_standin(), FAST_OPTIONS).record == good.record


def test_builder_gets_every_option(model: Path) -> None:
    engine = create_standin()
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
    engine = create_standin(version="8.6.0")
    ensure_plan(model, engine, FAST_OPTIONS)
    ((network, config),) = engine.module.builds
    assert network.flags == 1 << engine.module.NetworkDefinitionCreationFlag.EXPLICIT_BATCH
    assert config.flags == {"TF32", "FP16"}
    assert config.builder_optimization_level == 3
    assert config.tactic_sources == 0b11000
    with pytest.raises(BuildFailed, match=r"8\.6\.0 has no compatibility level same-compute"):
        ensure_plan(model, engine, replace(FAST_OPTIONS, compatibility="same-compute-capability"))


def test_fp32_is_not_tf32(model: Path) -> None:
    engine = create_standin()
    ensure_plan(model, engine, replace(FAST_OPTIONS, precision="fp32"))
    assert engine.module.builds[0][1].flags == set()


def test_an_onnx_file_replaced_while_another_builds_is_not_built(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan would have the identity of the one before."""

    @contextmanager
    def locked(path: Path) -> Iterator[None]:
        scale_model(model / "1" / "model.onnx", 0.9)
        yield

    monkeypatch.setattr(plans, "lock_file", locked)
    with pytest.raises(PlanRefused, match="the ONNX file of rehue was replaced during the build"):
        ensure_plan(model, create_standin(), FAST_OPTIONS)
    assert not (model / "1" / "model.plan").exists()


def test_a_plan_beyond_todays_tolerance_is_built_again(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ensure_plan(model, create_standin(), FAST_OPTIONS).record.parity["ab_largest"]
    stricter = replace(parity.TOLERANCE, ab_largest=found / 2)
    monkeypatch.setattr(parity, "TOLERANCE", stricter)
    with pytest.raises(PlanRefused, match="not accurate enough: ab_largest is"):
        check_plan(model, create_standin(), FAST_OPTIONS)
    with pytest.raises(PlanRefused, match=r"the plan built from .* is refused: ab_largest is"):
        ensure_plan(model, create_standin(), FAST_OPTIONS)


def test_models_are_those_with_a_gpu_configuration(model: Path) -> None:
    repository = model.parent
    (repository / "other" / "configs").mkdir(parents=True)
    assert [found.folder for found in find_served_models(repository)] == [model]
    with pytest.raises(ValueError, match="no other with configs"):
        find_served_models(repository, ["other"])
