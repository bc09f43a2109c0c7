"""Colorize the sample photographs with the whole system and write pages to ``demo/``.

Run by ``make demo``. Starts `rehue serve` on free ports, makes gray copies of the
samples, colorizes them with the SDK over gRPC, and writes an HTML page and a
contact sheet.
"""

import csv
import html
import shutil
import signal
import string
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console
from rich.progress import track

from rehue_client import Client, Picture, RehueError
from rehue_serve.testing.servers import Server, ServerFailed, start_server

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "tests" / "photos"
TEMPLATE = Path(__file__).with_name("demo.html")
DEMO = ROOT / "demo"
LOG = DEMO / "server.log"
ADVICE = f"""What to do: fix the error above. `make serve` starts the server alone. Its whole log
is in {LOG}. If the installation was interrupted, run `make clean demo`."""

console = Console(highlight=False)


class DemoFailed(RuntimeError):
    """A photograph was not colorized."""


@dataclass(frozen=True)
class Sample:
    """A sample photograph and its source."""

    file: str
    source: str
    licence: str

    @property
    def title(self) -> str:
        name = Path(self.file).stem.partition("_")[2]
        return name.partition("_by_")[0].replace("_", " ").capitalize()


def main() -> int:
    """Run the demo and return its exit code."""
    # By default SIGTERM would end this process without stopping the server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start = time.monotonic()
    try:
        samples = make_gray_copies()
        pictures, seconds = serve_and_colorize(samples)
    except (DemoFailed, RehueError, ServerFailed) as error:
        # No wrapping or markup: the message contains paths and brackets.
        console.print(f"The demo failed. {error}\n{ADVICE}", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    write_index(samples, pictures, seconds)
    write_contact_sheet(samples)
    console.print(
        f"{len(samples)} photographs in {seconds:.1f} s; "
        f"{time.monotonic() - start:.0f} s in total.\n"
        f"Look at  {DEMO / 'index.html'}\n"
        f"and at   {DEMO / 'contact-sheet.png'}",
        markup=False,
        soft_wrap=True,
    )
    return 0


def make_gray_copies() -> list[Sample]:
    """Write gray copies of the samples, and copies of the originals."""
    with (PHOTOS / "SOURCES.tsv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    for folder in ("original", "before", "after"):
        (DEMO / folder).mkdir(parents=True, exist_ok=True)
    for row in track(rows, "making gray copies", console=console):
        shutil.copy(PHOTOS / row["file"], DEMO / "original")
        with Image.open(PHOTOS / row["file"]) as photograph:
            # A single channel, so that no colour is left for the network to see.
            photograph.convert("L").save(DEMO / "before" / row["file"], quality=92)
    return [Sample(row["file"], row["source"], row["licence"]) for row in rows]


def serve_and_colorize(samples: list[Sample]) -> tuple[dict[str, Picture], float]:
    """Start the server and colorize the samples: pictures by file name, and seconds.

    Raises:
        ServerFailed: the server exited, or is not ready in time.
        DemoFailed: a photograph was not colorized.
    """
    shown = ""
    with console.status("starting the server") as status:

        def show_progress() -> None:
            nonlocal shown
            if (message := read_progress(LOG)) != shown:
                shown = message
                console.print(shown)
                status.update(shown)

        server = start_server(LOG, directory=ROOT, host="127.0.0.1", api_keys_file="")
        try:
            server.wait_until_ready(show_progress)
            status.stop()
            start = time.monotonic()
            return colorize_samples(server, samples), time.monotonic() - start
        finally:
            status.update("stopping the server")
            status.start()
            stop_server(server)


def read_progress(log: Path) -> str:
    """Return the server's last progress message."""
    lines = log.read_text(errors="replace").splitlines()
    messages = [line.removeprefix("rehue: ") for line in lines if line.startswith("rehue: ")]
    return messages[-1] if messages else "starting the server"


def stop_server(server: Server) -> None:
    """Stop the server; report it if it had to be killed."""
    try:
        server.stop()
    except subprocess.TimeoutExpired:
        console.print("[yellow]The server did not stop in time and was killed.[/]")


def colorize_samples(server: Server, samples: list[Sample]) -> dict[str, Picture]:
    """Colorize the gray copies; return the pictures by file name and write them to ``after``."""
    paths = [DEMO / "before" / sample.file for sample in samples]
    pictures: dict[str, Picture] = {}
    with Client(server.grpc_url) as client:
        results = client.colorize_many(paths, concurrency=4)
        for result in track(results, "colorizing", total=len(paths), console=console):
            name = Path(str(result.source)).name
            if result.picture is None:
                raise DemoFailed(f"{name}: {result.error}")
            result.picture.save(DEMO / "after" / name)
            pictures[name] = result.picture
    return pictures


def write_index(samples: list[Sample], pictures: dict[str, Picture], seconds: float) -> None:
    """Write the HTML page, with a slider for each photograph."""
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    models = sorted({picture.model for picture in pictures.values()})
    page = template.substitute(
        count=len(samples),
        seconds=f"{seconds:.1f}",
        models=html.escape(", ".join(models)),
        figures="\n".join(render_figure(sample, pictures[sample.file]) for sample in samples),
    )
    (DEMO / "index.html").write_text(page, encoding="utf-8")


def render_figure(sample: Sample, picture: Picture) -> str:
    """Return the HTML of one photograph."""
    file, title = html.escape(sample.file), html.escape(sample.title)
    with Image.open(DEMO / "after" / sample.file) as image:
        width, height = image.size
    timings = picture.timings
    return f"""
<figure>
  <div class="compare" style="aspect-ratio: {width} / {height}">
    <img class="left" src="before/{file}" data-gray="before/{file}"
      data-original="original/{file}" alt="{title}, in gray" loading="lazy">
    <img class="right" src="after/{file}" alt="{title}, colorized" loading="lazy">
    <i></i>
    <input type="range" min="0" max="100" step="0.1" value="50"
      aria-label="{title}: share of the left picture">
  </div>
  <figcaption>
    <strong>{title}</strong> <span>{width} x {height}, {timings.total:.0f} ms
    ({timings.infer:.0f} ms in the network)</span>
    <small>{html.escape(sample.licence)} &middot; {html.escape(sample.source)}</small>
  </figcaption>
</figure>"""


def write_contact_sheet(samples: list[Sample]) -> None:
    """Write one image with all pairs: gray on the left, colour on the right."""
    columns, gap, margin, header = 4, 12, 32, 84
    box = (224, 190)
    rows = -(-len(samples) // columns)
    cell = (2 * box[0] + 2 * gap, box[1] + gap)
    size = (2 * margin + columns * cell[0] - gap, header + margin + rows * cell[1])
    sheet = Image.new("RGB", size, "#16181c")
    font = ImageFont.load_default(size=30)
    ImageDraw.Draw(sheet).text((margin, 26), "Rehue: before and after", "#ece8e1", font)
    for number, sample in enumerate(samples):
        left = margin + number % columns * cell[0]
        top = header + number // columns * cell[1]
        for side, folder in enumerate(("before", "after")):
            with Image.open(DEMO / folder / sample.file) as image:
                thumbnail = ImageOps.contain(image.convert("RGB"), box)
            # The two images of a pair touch, whatever their aspect ratio.
            x = left + box[0] + (-thumbnail.width if side == 0 else 0)
            sheet.paste(thumbnail, (x, top + (box[1] - thumbnail.height) // 2))
    sheet.save(DEMO / "contact-sheet.png")


if __name__ == "__main__":
    sys.exit(main())
