"""The report of a job: one HTML file beside the pictures that loads nothing from elsewhere."""

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape

import cv2
import numpy as np

from rehue_serve.batch.figures import Figures, collect_figures
from rehue_serve.batch.manifest import Record
from rehue_serve.batch.options import Options
from rehue_serve.batch.pending import Counts
from rehue_serve.batch.progress import describe_bytes, describe_duration
from rehue_serve.batch.stores import FOLDER, get_store, join_location

REPORT = f"{FOLDER}/report.html"
SHEET = 24  # pictures on the contact sheet
THUMBNAIL = 260  # pixels of the longer side
CHART = (900, 160)  # width and height in pixels

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { text-align: left; padding: .2rem 1rem
.2rem 0; vertical-align: top; overflow-wrap: anywhere } th { min-width: 6rem }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem }
figure { margin: 0 } figure img { max-width: 100%; display: block }
figcaption { font-size: .8rem; overflow-wrap: anywhere }
svg { width: 100%; height: auto } svg path { fill: currentColor; opacity: .55 }
"""


def write_report(options: Options, counts: Counts, stopped: str) -> str:
    """Write the report and return its location.

    Args:
        counts: photographs of the source.
        stopped: why the run ended before its end; empty if it did not.

    Raises:
        OSError: the manifest cannot be read, or the report not be written.
    """
    figures = collect_figures(options.target, options.run, SHEET)
    html = build_report(options, figures, counts, stopped)
    location = join_location(options.target, REPORT)
    get_store(location).write(location, html.encode("utf-8", "replace"), options.target)
    return location


def build_report(options: Options, figures: Figures, counts: Counts, stopped: str) -> str:
    """Build the report's HTML."""
    state = f"<p><strong>Stopped:</strong> {escape(stopped)}</p>" if stopped else ""
    thumbnails = [_build_thumbnail(options, record) for record in figures.sample]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Rehue: {escape(options.target)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style>
<h1>{counts.done:,} photographs colorized</h1>{state}
{_build_table(_list_facts(options, figures, counts))}
{_build_failures(figures)}
<h2>Photographs per second in the last run</h2>
{_build_chart(figures)}
<h2>A sample of the pictures</h2>
<div class="sheet">{"".join(thumbnails)}</div>
</html>
"""


def _list_facts(options: Options, figures: Figures, counts: Counts) -> Iterable[tuple[str, str]]:
    yield "Source", options.source.describe()
    yield "Target", options.target
    yield "Done", f"{counts.done:,}"
    yield "Failed", f"{counts.failed:,}"
    yield "Not tried", f"{counts.missing:,}"
    yield "Models", ", ".join(f"{name} ({n:,})" for name, n in figures.models.most_common())
    yield "Parameters", "; ".join(name for name, _ in figures.parameters.most_common())
    yield "Read", describe_bytes(figures.source_bytes)
    yield "Written", describe_bytes(figures.output_bytes)
    seconds = figures.busy_seconds
    yield "Time", describe_duration(seconds)
    if seconds:
        tried = figures.done + figures.failures.total()
        yield "Rate", f"{tried / seconds:,.1f} photographs/s"
    if options.price:
        cost = seconds / 3600 * options.price
        each = f", {cost / figures.done * 1000:,.3f} for a thousand" if figures.done else ""
        yield "Cost", f"{cost:,.2f} at {options.price:g} an hour{each}"
    yield "Written at", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _build_table(rows: Iterable[tuple[str, str]]) -> str:
    cells = (f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in rows)
    return f"<table>{''.join(cells)}</table>"


def _build_failures(figures: Figures) -> str:
    if not figures.failures:
        return ""
    counts = _build_table((reason, f"{n:,}") for reason, n in figures.failures.most_common())
    failed = _build_table((record.source, f"{record.reason}: {record.message}")
                          for record in figures.failed)  # fmt: skip
    return (
        f"<h2>Failures</h2>{counts}<details><summary>the first {len(figures.failed):,} of them"
        f"</summary>{failed}</details>"
    )


def _build_chart(figures: Figures) -> str:
    """Draw photographs/s over time as a step chart in SVG."""
    starts, rates = figures.count_by_time()
    if not len(rates):
        return "<p>too few for a chart</p>"
    width, height = CHART
    x = np.append(np.arange(len(rates)), len(rates)) * width / len(rates)
    y = height - rates / rates.max() * (height - 20)
    steps = "".join(f"V{at:.1f}H{right:.1f}" for at, right in zip(y, x[1:], strict=True))
    duration = describe_duration(float(figures.finished.max() - figures.finished.min()))
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{rates.max():.1f} photographs/s at most"><path d="M0,{height}{steps}'
        f'V{height}Z"/></svg><p>{duration}; {rates.max():.1f} photographs/s at most, '
        f"{len(figures.finished) / max(0.001, starts[-1]):.1f} on average</p>"
    )


def _build_thumbnail(options: Options, record: Record) -> str:
    """Build one picture of the contact sheet; empty if it cannot be read."""
    location = join_location(options.target, record.output)
    try:
        data = np.frombuffer(get_store(location).read(location), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return ""
    if picture is None:
        return ""
    scale = THUMBNAIL / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    encoded = base64.b64encode(jpeg.tobytes()).decode()
    caption = escape(record.output)
    return (
        f'<figure><img src="data:image/jpeg;base64,{encoded}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
