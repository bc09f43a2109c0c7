"""Plans and kernels' times that builds and nodes share."""

from dataclasses import replace
from pathlib import Path

import pytest
from plan_models import (
    FAST_OPTIONS,
    check_plan,
    copy_model,
    ensure_plan,
    scale_model,
)
from standin import H100, create_standin

from rehue_training.plan.gpu_runners import make_product_onnx


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return copy_model(tmp_path / "repository")


@pytest.mark.parametrize("cache", [None, "cache"])
def test_what_was_timed_is_kept_for_other_weights(
    model: Path, tmp_path: Path, cache: str | None
) -> None:
    options = replace(FAST_OPTIONS, cache=tmp_path / cache if cache else None)
    ensure_plan(model, create_standin(), options)
    scale_model(model / "1" / "model.onnx", 0.9)
    ensure_plan(model, create_standin(), options)
    ensure_plan(model, create_standin(replace(H100, driver="600.1")), options)
    kept = (options.cache or model / "1").glob("model.plan.timing-????????????????")
    assert sorted(path.read_bytes() for path in kept) == [b"timed;", b"timed;timed;"]


@pytest.mark.parametrize("null", ["", "timing cache"])
def test_a_timing_cache_of_another_gpu_is_left(null: str) -> None:
    """TensorRT does not attach it, or makes none of it."""
    built = create_standin(null=null).build_plan(
        make_product_onnx(8), [], precision="fp32", timing_cache=b"of another GPU"
    )
    assert built.timing_cache == b"timed;"


def test_nodes_with_unlike_gpus_share_a_cache(model: Path, tmp_path: Path) -> None:
    """Each node's own repository gets its own plan; the cache keeps both."""
    options = replace(FAST_OPTIONS, cache=tmp_path / "cache")
    nodes = [copy_model(tmp_path / name) for name in ("one", "two", "three")]
    a10 = replace(H100, name="NVIDIA A10", compute_capability="8.6")
    outcomes = [
        ensure_plan(node, create_standin(gpu), options)
        for node, gpu in zip(nodes, (H100, a10, H100), strict=True)
    ]
    assert [outcome.built for outcome in outcomes] == [True, True, False]
    assert outcomes[0].record == outcomes[2].record
    for node, gpu in zip(nodes, (H100, a10, H100), strict=True):
        assert check_plan(node, create_standin(gpu), options).record.identity.gpu == gpu.name


def test_gpus_that_may_share_a_plan_share_the_caches(model: Path, tmp_path: Path) -> None:
    options = replace(FAST_OPTIONS, cache=tmp_path / "cache", compatibility="ampere-plus")
    a10 = create_standin(replace(H100, name="NVIDIA A10", compute_capability="8.6"))
    assert ensure_plan(model, create_standin(), options).built
    other = copy_model(tmp_path / "other")
    with pytest.raises(ValueError, match="at least one array"):  # compared there too, on none
        ensure_plan(other, a10, replace(options, photographs=list))
    assert not (other / "1" / "model.plan").exists()
    assert not ensure_plan(other, a10, options).built
    assert check_plan(other, a10, options).record.identity.gpu == H100.name
