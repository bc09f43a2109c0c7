"""Colorize the sample photographs with the whole system and write pages to ``demo/``.

Run by ``make demo``. Starts `rehue serve` on free ports, makes gray copies of the
samples, colorizes them with the SDK over gRPC, and writes an HTML page and a
contact sheet.
"""

import contextlib
import csv
import html
import os
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console
from rich.progress import track

from rehue_client import Client, Picture, RehueError
from rehue_serve.ports import claim_free_ports

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "tests" / "photos"
TEMPLATE = Path(__file__).with_name("demo.html")
DEMO = ROOT / "demo"

START_TIMEOUT = 180.0  # seconds; Triton and Ray Serve start slowly on a loaded machine
STOP_TIMEOUT = 60.0  # seconds for requests in flight and for Ray to stop
LOG_TAIL = 20  # lines of the server's log to print if it does not start

console = Console(highlight=False)


class DemoFailed(RuntimeError):
    """The demo cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Server:
    """A running `rehue serve`."""

    process: subprocess.Popen[bytes]
    log: Path
    http_url: str
    grpc_url: str


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
        with start_server(DEMO / "server.log") as server:
            colorize_start = time.monotonic()
            pictures = colorize_samples(server, samples)
            seconds = time.monotonic() - colorize_start
    except (DemoFailed, RehueError) as error:
        # No wrapping or markup: the message contains paths and brackets.
        console.print(f"The demo failed. {error}", markup=False, soft_wrap=True)
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


@contextlib.contextmanager
def start_server(log: Path) -> Iterator[Server]:
    """Start `rehue serve`, wait until it is ready, and stop it at the end."""
    http, grpc, metrics = claim_free_ports(3)
    environment = os.environ | {
        "REHUE_HOST": "127.0.0.1",
        "REHUE_HTTP_PORT": str(http),
        "REHUE_GRPC_PORT": str(grpc),
        "REHUE_METRICS_PORT": str(metrics),
        "REHUE_API_KEYS_FILE": "",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "rehue_client", "serve"],
            env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    server = Server(process, log, f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{grpc}")
    try:
        wait_until_ready(server)
        yield server
    finally:
        stop_server(server)


def wait_until_ready(server: Server) -> None:
    """Wait until the server is ready over both protocols; print its progress.

    Raises:
        DemoFailed: the server exited, or is not ready in time.
    """
    deadline = time.monotonic() + START_TIMEOUT
    shown = ""
    with (
        Client(server.http_url) as http,
        Client(server.grpc_url) as grpc,
        console.status("starting the server") as status,
    ):
        while not (http.ready() and grpc.ready()):
            if server.process.poll() is not None:
                raise DemoFailed(f"`rehue serve` exited.\n{describe_log(server)}")
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"The server is not ready after {START_TIMEOUT:.0f} s.\n{describe_log(server)}"
                )
            if (message := read_progress(server.log)) != shown:
                shown = message
                console.print(shown)
                status.update(shown)
            time.sleep(0.2)


def read_progress(log: Path) -> str:
    """Return the server's last progress message."""
    lines = log.read_text(errors="replace").splitlines()
    messages = [line.removeprefix("rehue: ") for line in lines if line.startswith("rehue: ")]
    return messages[-1] if messages else "starting the server"


def describe_log(server: Server) -> str:
    """Return the end of the server's log and what to do next."""
    lines = server.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
    return "\n".join(
        [
            "The end of its log:",
            *(f"  {line}" for line in lines),
            "What to do: fix the error above. `make serve` starts the server alone. The whole log",
            f"is in {server.log}. If the installation was interrupted, run `make clean demo`.",
        ]
    )


def stop_server(server: Server) -> None:
    """Send SIGTERM and wait; kill the server if it does not stop in time."""
    if server.process.poll() is not None:
        return
    with console.status("stopping the server"):
        server.process.terminate()
        try:
            server.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
            console.print(
                f"[yellow]The server did not stop within {STOP_TIMEOUT:.0f} s and was killed.[/]"
            )


def colorize_samples(server: Server, samples: list[Sample]) -> dict[str, Picture]:
    """Colorize the gray copies; return the pictures by file name and write them to ``after``."""
    paths = [DEMO / "before" / sample.file for sample in samples]
    pictures: dict[str, Picture] = {}
    with Client(server.grpc_url) as client:
        results = client.colorize_many(paths, concurrency=4)
        for result in track(results, "colorizing", total=len(paths), console=console):
            name = Path(str(result.source)).name
            if result.picture is None:
                raise DemoFailed(f"{name}: {result.error}\n{describe_log(server)}")
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
