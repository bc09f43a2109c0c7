"""Colorizes the sample photographs through the whole system, into ``demo/``.

What ``make demo`` runs once everything is installed. It starts `rehue serve` on
ports of its own, takes the colour out of the samples, gives the gray copies to
the gRPC SDK as anyone would, and writes pages to look at.
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

START = 180.0  # seconds for Triton and Ray Serve to come up on a slow machine
STOP = 60.0  # seconds for photographs under way, and for Ray to take itself down
TAIL = 20  # lines of the server's log to show when it does not start

console = Console(highlight=False)


class DemoFailed(RuntimeError):
    """A step failed; the message says what to do."""


@dataclass(frozen=True)
class Server:
    """The running `rehue serve`."""

    process: subprocess.Popen[bytes]
    log: Path
    http_url: str
    grpc_url: str


@dataclass(frozen=True)
class Sample:
    """One photograph and where it comes from."""

    file: str
    source: str
    licence: str

    @property
    def title(self) -> str:
        name = Path(self.file).stem.partition("_")[2]
        return name.partition("_by_")[0].replace("_", " ").capitalize()


def main() -> int:
    """Runs the demo; gives its exit code."""
    # A plain SIGTERM would end this process and leave the server running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    try:
        samples = take_colour_out()
        with serving(DEMO / "server.log") as server:
            start = time.monotonic()
            pictures = colorize(server, samples)
            seconds = time.monotonic() - start
    except (DemoFailed, RehueError) as error:
        # Not wrapped and not marked up: there are paths and brackets in it.
        console.print(f"The demo failed. {error}", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    write_index(samples, pictures, seconds)
    write_contact_sheet(samples)
    console.print(
        f"{len(samples)} photographs in {seconds:.1f} s, {time.monotonic() - began:.0f} s in all.\n"
        f"Look at  {DEMO / 'index.html'}\n"
        f"and at   {DEMO / 'contact-sheet.png'}",
        markup=False,
        soft_wrap=True,
    )
    return 0


def take_colour_out() -> list[Sample]:
    """Gray copies of the samples, beside the originals."""
    with (PHOTOS / "SOURCES.tsv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    for folder in ("original", "before", "after"):
        (DEMO / folder).mkdir(parents=True, exist_ok=True)
    for row in track(rows, "taking the colour out", console=console):
        shutil.copy(PHOTOS / row["file"], DEMO / "original")
        with Image.open(PHOTOS / row["file"]) as photograph:
            # One channel only: no trace of colour is left for the network to find.
            photograph.convert("L").save(DEMO / "before" / row["file"], quality=92)
    return [Sample(row["file"], row["source"], row["licence"]) for row in rows]


@contextlib.contextmanager
def serving(log: Path) -> Iterator[Server]:
    """`rehue serve`, ready; stopped at the end, and waited for."""
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
        stop(server)


def wait_until_ready(server: Server) -> None:
    """Until both protocols say so; shows what the server is doing."""
    deadline = time.monotonic() + START
    said = ""
    with (
        Client(server.http_url) as http,
        Client(server.grpc_url) as grpc,
        console.status("starting the server") as status,
    ):
        while not (http.ready() and grpc.ready()):
            if server.process.poll() is not None:
                raise DemoFailed(f"`rehue serve` ended.\n{advice(server)}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"No server after {START:.0f} s.\n{advice(server)}")
            if (now := doing(server.log)) != said:
                said = now
                console.print(said)
                status.update(said)
            time.sleep(0.2)


def doing(log: Path) -> str:
    """The last thing that the server said of itself."""
    lines = log.read_text(errors="replace").splitlines()
    ours = [line.removeprefix("rehue: ") for line in lines if line.startswith("rehue: ")]
    return ours[-1] if ours else "starting the server"


def advice(server: Server) -> str:
    """The server's last words and what to do about them."""
    lines = server.log.read_text(errors="replace").splitlines()[-TAIL:]
    return "\n".join(
        [
            "Its last words:",
            *(f"  {line}" for line in lines),
            "What to do: mend what it says. `make serve` starts it alone; all it said is in",
            f"{server.log}. Where the setup broke off halfway, `make clean demo` begins anew.",
        ]
    )


def stop(server: Server) -> None:
    """SIGTERM, then patience."""
    if server.process.poll() is not None:
        return
    with console.status("stopping the server"):
        server.process.terminate()
        try:
            server.process.wait(STOP)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
            console.print(f"[yellow]The server did not stop in {STOP:.0f} s and was killed.[/]")


def colorize(server: Server, samples: list[Sample]) -> dict[str, Picture]:
    """The pictures by file name, written to ``after``."""
    paths = [DEMO / "before" / sample.file for sample in samples]
    pictures: dict[str, Picture] = {}
    with Client(server.grpc_url) as client:
        results = client.colorize_many(paths, concurrency=4)
        for result in track(results, "colorizing", total=len(paths), console=console):
            name = Path(str(result.source)).name
            if result.picture is None:
                raise DemoFailed(f"{name}: {result.error}\n{advice(server)}")
            result.picture.save(DEMO / "after" / name)
            pictures[name] = result.picture
    return pictures


def write_index(samples: list[Sample], pictures: dict[str, Picture], seconds: float) -> None:
    """The page with a slider for each photograph."""
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    models = sorted({picture.model for picture in pictures.values()})
    page = template.substitute(
        count=len(samples),
        seconds=f"{seconds:.1f}",
        models=html.escape(", ".join(models)),
        figures="\n".join(figure(sample, pictures[sample.file]) for sample in samples),
    )
    (DEMO / "index.html").write_text(page, encoding="utf-8")


def figure(sample: Sample, picture: Picture) -> str:
    """One photograph's part of the page."""
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
    ({timings.infer:.0f} of them the network's)</span>
    <small>{html.escape(sample.licence)} &middot; {html.escape(sample.source)}</small>
  </figcaption>
</figure>"""


def write_contact_sheet(samples: list[Sample]) -> None:
    """All pairs on one sheet: gray on the left, colour on the right of each."""
    columns, gap, margin, head = 4, 12, 32, 84
    box = (224, 190)
    rows = -(-len(samples) // columns)
    cell = (2 * box[0] + 2 * gap, box[1] + gap)
    size = (2 * margin + columns * cell[0] - gap, head + margin + rows * cell[1])
    sheet = Image.new("RGB", size, "#16181c")
    font = ImageFont.load_default(size=30)
    ImageDraw.Draw(sheet).text((margin, 26), "Rehue: before and after", "#ece8e1", font)
    for number, sample in enumerate(samples):
        left = margin + number % columns * cell[0]
        top = head + number // columns * cell[1]
        for side, folder in enumerate(("before", "after")):
            with Image.open(DEMO / folder / sample.file) as image:
                thumbnail = ImageOps.contain(image.convert("RGB"), box)
            # The two of a pair touch, whatever their shape.
            x = left + box[0] + (-thumbnail.width if side == 0 else 0)
            sheet.paste(thumbnail, (x, top + (box[1] - thumbnail.height) // 2))
    sheet.save(DEMO / "contact-sheet.png")


if __name__ == "__main__":
    sys.exit(main())
