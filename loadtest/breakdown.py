"""The CPU time of a photograph by stage.

python -m loadtest.breakdown   # with REHUE_C2PA_CERTIFICATES and REHUE_C2PA_KEY: signing too
"""

from collections.abc import Callable

from loadtest.chain import MODEL, OUTPUT, measure_cpu_ms
from loadtest.samples import create_photograph
from rehue_core import colorize, lab
from rehue_serve import images
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.metadata.credentials import create_signer
from rehue_serve.settings import load_settings

REPEATS = 200  # of each stage


def measure_stages() -> dict[str, dict[str, float]]:
    """Return the CPU milliseconds of each stage for 512 px, on one thread."""
    colour, gray = (
        _measure_stages(create_photograph(512, 512, gray=gray)) for gray in (False, True)
    )
    return {name: {"colour": colour[name], "gray": gray[name]} for name in colour}


def _measure_stages(photograph: bytes) -> dict[str, float]:
    def decode() -> lab.Lightness:
        opened = images.open_image(photograph, max_bytes=1 << 30, max_pixels=1 << 30)
        return images.decode_lightness(opened)

    lightness = decode()
    _, box = colorize.prepare_input(lightness, MODEL)
    planes = colorize.compose_planes(lightness, OUTPUT, box, MODEL, 1.0)
    stages: dict[str, Callable[[], object]] = {
        "decode, with lightness": decode,
        "prepare": lambda: colorize.prepare_input(lightness, MODEL),
        "color": lambda: colorize.compose_planes(lightness, OUTPUT, box, MODEL, 1.0),
        "encode": lambda: encode_pictures([planes], "jpeg", 92),
    }
    settings = load_settings()
    signer = create_signer(settings.c2pa_certificates, settings.c2pa_key)
    if signer:
        picture = encode_pictures([planes], "jpeg", 92)
        stages["sign"] = lambda: signer.sign(
            signer.begin_manifest(photograph), picture, "image/jpeg", "rehue/1", ""
        )
    return {
        name: measure_cpu_ms(lambda _, run=run: run(), b"", REPEATS)  # type: ignore[misc]
        for name, run in stages.items()
    }


if __name__ == "__main__":
    for stage, times in measure_stages().items():
        print(stage, *(f"{kind} {time:.2f} ms" for kind, time in times.items()), sep=", ")
