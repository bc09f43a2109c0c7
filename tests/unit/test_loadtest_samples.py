"""The load test's bad inputs are refused for the reason that it expects."""

import pytest

from loadtest.samples import Sample, create_mix
from rehue_serve import images
from rehue_serve.errors import RehueError, get_reason_name


@pytest.mark.parametrize("sample", create_mix().bad, ids=lambda sample: sample.name)
def test_bad_input_is_refused_for_its_reason(sample: Sample) -> None:
    with pytest.raises(RehueError) as raised:
        images.decode_lightness(
            images.open_image(sample.data, max_bytes=32 * 2**20, max_pixels=50_000_000)
        )
    assert get_reason_name(raised.value) == sample.reason
