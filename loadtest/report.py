"""The report of a load test: JSON, CSV, HTML, a picture, and whether the levels were met."""

import csv
import html
import json
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger import Outcome, Tally

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = ("answered", "rate")  # levels that are lower bounds
SETTLE = 2.0  # seconds left out after a stage's last user has started


@dataclass(frozen=True)
class Point:
    """What was seen in one stage, from when its users had started.

    Attributes:
        load: users, or another measure of the load offered.
        seconds: of the clock.
    """

    load: float
    seconds: float
    tally: Tally

    @property
    def rate(self) -> float:
        """Photographs answered a second."""
        return self.tally.outcomes[Outcome.COLORIZED] / self.seconds

    def row(self) -> dict[str, float]:
        """The point as numbers, for tables."""
        return {
            "users": self.load,
            "photographs_per_second": round(self.rate, 2),
            "p50_ms": self.tally.percentile(50),
            "p95_ms": self.tally.percentile(95),
            "p99_ms": self.tally.percentile(99),
            "refused": round(self.tally.share(Outcome.REFUSED), 4),
            "failed": round(self.tally.share(Outcome.FAILED), 4),
            "requests": self.tally.requests,
        }


def windows(
    stages: Sequence[tuple[float, int, float]], began: float, ended: float
) -> list[tuple[int, float, float]]:
    """Users, start and end of what counts of each stage, in whole seconds of Unix time."""
    found, at, before = [], began, 0
    for seconds, users, rate in stages:
        settled = at + min(abs(users - before) / rate + SETTLE, seconds / 2)
        at, before = min(at + seconds, ended), users
        if math.ceil(settled) < math.floor(at):
            found.append((users, float(math.ceil(settled)), float(math.floor(at))))
    return found


def judged(
    points: Sequence[Point], whole: Tally, levels: Mapping[str, float]
) -> list[dict[str, Any]]:
    """What was wanted and found of each service level, and whether it was met.

    The latency and the shares are of the whole run, the rate of the best stage; the
    drift is the median latency of the last stage over that of the first.
    """
    medians = [point.tally.percentile(50) for point in points]
    found = {
        "answered": whole.outcomes[Outcome.COLORIZED],
        "p99_ms": whole.percentile(99),
        "failed": whole.share(Outcome.FAILED),
        "refused": whole.share(Outcome.REFUSED),
        "rate": max((point.rate for point in points), default=math.nan),
        "drift": medians[-1] / medians[0] if medians else math.nan,
    }
    wanted = {"answered": 1.0, **levels}  # without an answer there is nothing to judge
    return [
        {
            "level": name,
            "wanted": f"at {'least' if name in LEAST else 'most'} {limit:g}",
            "found": found[name],
            "met": found[name] >= limit if name in LEAST else found[name] <= limit,
        }
        for name, limit in wanted.items()
    ]


def write(
    folder: Path,
    *,
    title: str,
    points: Sequence[Point],
    whole: Tally,
    levels: Mapping[str, float],
    locust: str | None,
) -> bool:
    """Writes report.json, report.csv, report.html and latency.png.

    Args:
        locust: where locust's own report lies, seen from the folder.

    Returns:
        Whether every service level was met.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [point.row() for point in points]
    facts: dict[str, Any] = {
        "title": title,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "generator": machine(),
        "levels": judged(points, whole, levels),
        "outcomes": {name: whole.outcomes[name] for name in Outcome.ALL},
        "whole": {f"p{percent}_ms": whole.percentile(percent) for percent in (50, 95, 99)},
        "where_ms": {stage: round(ms, 2) for stage, ms in whole.means().items()},
        "stages": rows,
    }
    (folder / "report.json").write_text(as_json(facts))
    with (folder / "report.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["users"])
        table.writeheader()
        table.writerows(rows)
    draw(folder / "latency.png", points, whole)
    (folder / "report.html").write_text(page(facts, locust))
    print(text(facts))
    return all(level["met"] for level in facts["levels"])


def as_json(facts: object) -> str:
    """For a file; NaN, for which JSON has no word, is null."""
    plain = json.loads(json.dumps(facts), parse_constant=lambda _: None)
    return json.dumps(plain, indent=2) + "\n"


def machine() -> str:
    """In words, for reports."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.machine()}"


def text(facts: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    lines = [f"\n{facts['title']}", " ".join(f"{name:>14}" for name in _HEADS)]
    lines += [" ".join(f"{value:>14g}" for value in row.values()) for row in facts["stages"]]
    lines.append(f"Outcomes: {facts['outcomes']}")
    lines.append(f"Where the time of a photograph went (mean, ms): {facts['where_ms']}")
    lines += [
        f"{'met' if level['met'] else 'MISSED'}: {level['level']} was {level['found']:.4g}, "
        f"wanted {level['wanted']}"
        for level in facts["levels"]
    ]
    return "\n".join(lines)


_HEADS = ("users", "photographs/s", "p50 ms", "p95 ms", "p99 ms", "refused", "failed", "requests")

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Load test</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
td:first-child, th:first-child {{ text-align: left; }}
img {{ max-width: 100%; }}
.missed {{ color: #b00020; font-weight: bold; }}
</style>
<h1>Load test</h1>
<p>{title}; {written}; the load came from a machine of {generator}.</p>
<h2>Service levels</h2>
<div><table><tr><th>level</th><th>wanted</th><th>found</th><th></th></tr>{levels}</table></div>
<h2>Stage by stage</h2>
<div><table><tr>{heads}</tr>{rows}</table></div>
<p>All requests: {outcomes}. The seconds in which users start are in these and in the levels,
but in no row.</p>
<img src="latency.png" alt="Latency over throughput, and where the time went">
<h2>Where the time of a photograph went</h2>
<div><table><tr><th>stage</th><th>mean, ms</th></tr>{where}</table></div>
<p>The server's own timings; "elsewhere" is what remains of the time that the user waited:
queues in front of the stages, HTTP or gRPC, the network.</p>
{locust}
</html>
"""


def page(facts: Mapping[str, Any], locust: str | None) -> str:
    """The report as HTML."""
    link = f'<p>By protocol and kind of photograph: <a href="{locust}">locust\'s report</a>.</p>'
    return _PAGE.format(
        title=html.escape(facts["title"]),
        written=facts["written"],
        generator=html.escape(facts["generator"]),
        levels="".join(_level(level) for level in facts["levels"]),
        outcomes=", ".join(f"{count} {name}" for name, count in facts["outcomes"].items()),
        heads="".join(f"<th>{head}</th>" for head in _HEADS),
        rows="".join(_cells(*(f"{value:g}" for value in row.values())) for row in facts["stages"]),
        where="".join(_cells(name, f"{ms:g}") for name, ms in facts["where_ms"].items()),
        locust=link if locust else "",
    )


def _level(level: Mapping[str, Any]) -> str:
    verdict = "met" if level["met"] else '<span class="missed">missed</span>'
    return _cells(level["level"], level["wanted"], f"{level['found']:.4g}", verdict)


def _cells(*values: str) -> str:
    return f"<tr>{''.join(f'<td>{value}</td>' for value in values)}</tr>"


def draw(path: Path, points: Sequence[Point], whole: Tally) -> None:
    """Latency over throughput, one mark a stage; and where the time went."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    rates = [point.rate for point in points]
    for percent in (50, 95, 99):
        left.plot(
            rates,
            [point.tally.percentile(percent) for point in points],
            marker="o",
            label=f"p{percent}",
        )
    for point in points:
        left.annotate(
            f"{point.load:g}", (point.rate, point.tally.percentile(50)),
            textcoords="offset points", xytext=(4, -12), fontsize=8,
        )  # fmt: skip
    left.set(
        xlabel="photographs answered a second",
        title="As users saw it; the numbers are users",
    )
    left.set_xlim(left=0)
    log_scale(left)
    means = whole.means()
    right.barh(list(means), list(means.values()))
    right.invert_yaxis()
    right.set(xlabel="ms, mean of a photograph", title="Where the time went")
    figure.savefig(path, dpi=110)


def log_scale(axes: "Axes") -> None:
    """Milliseconds from tens to ten thousands, in plain numbers."""
    from matplotlib.ticker import LogFormatter

    if math.isinf(axes.dataLim.minposy):  # nothing was answered
        return
    axes.set(ylabel="ms", yscale="log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
