"""The report of a load test: JSON, CSV, HTML, a chart, and the service levels."""

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

from loadtest.ledger import Outcome, Tally

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOWER_BOUNDS = ("answered", "rate")  # service levels; the others are upper bounds
SETTLE = 2.0  # seconds not counted after the last user of a stage has started


@dataclass(frozen=True)
class StageResult:
    """The results of one stage, from when all its users have started.

    Attributes:
        users: in parallel.
        seconds: that were counted.
    """

    users: float
    seconds: float
    tally: Tally

    @property
    def rate(self) -> float:
        """Answered photographs per second."""
        return self.tally.outcomes[Outcome.COLORIZED] / self.seconds

    def to_row(self) -> dict[str, float]:
        """Return the figures by column."""
        return {
            "users": self.users,
            "photographs_per_second": round(self.rate, 2),
            "p50_ms": self.tally.compute_percentile(50),
            "p95_ms": self.tally.compute_percentile(95),
            "p99_ms": self.tally.compute_percentile(99),
            "refused": round(self.tally.compute_share(Outcome.REFUSED), 4),
            "failed": round(self.tally.compute_share(Outcome.FAILED), 4),
            "requests": self.tally.requests,
        }


def compute_windows(
    stages: Sequence[tuple[float, int, float]], started: float, stopped: float
) -> list[tuple[int, float, float]]:
    """Return the seconds that count of each stage: users, start and end.

    Args:
        stages: seconds, users, and users started per second, of each stage.
        started: of the whole run, in Unix time.
        stopped: of the whole run, in Unix time.

    Start and end are whole seconds of Unix time.
    """
    windows, start, previous = [], started, 0
    for seconds, users, rate in stages:
        settled = start + min(abs(users - previous) / rate + SETTLE, seconds / 2)
        end = min(start + seconds, stopped)
        if math.ceil(settled) < math.floor(end):
            windows.append((users, float(math.ceil(settled)), float(math.floor(end))))
        start, previous = end, users
    return windows


def judge_levels(
    stages: Sequence[StageResult], total: Tally, levels: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return for each service level its limit, the measured value and whether it is met.

    Latency and shares are those of the whole run, the rate that of the best stage; the
    drift is the median latency of the last stage over that of the first.
    """
    medians = [stage.tally.compute_percentile(50) for stage in stages]
    measured = {
        "answered": total.outcomes[Outcome.COLORIZED],
        "p99_ms": total.compute_percentile(99),
        "failed": total.compute_share(Outcome.FAILED),
        "refused": total.compute_share(Outcome.REFUSED),
        "rate": max((stage.rate for stage in stages), default=math.nan),
        "drift": medians[-1] / medians[0] if medians else math.nan,
    }
    limits = {"answered": 1.0, **levels}  # a run without an answer always fails
    return [
        {
            "level": name,
            "wanted": f"at {'least' if name in LOWER_BOUNDS else 'most'} {limit:g}",
            "found": measured[name],
            "met": measured[name] >= limit if name in LOWER_BOUNDS else measured[name] <= limit,
        }
        for name, limit in limits.items()
    ]


def write_report(
    folder: Path,
    *,
    title: str,
    stages: Sequence[StageResult],
    total: Tally,
    levels: Mapping[str, float],
    locust: str | None,
) -> bool:
    """Write report.json, report.csv, report.html and latency.png, and print the report.

    Args:
        total: of the whole run.
        levels: limits by service level; see `judge_levels`.
        locust: path of locust's own report, relative to the folder.

    Returns:
        Whether every service level is met.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [stage.to_row() for stage in stages]
    facts: dict[str, Any] = {
        "title": title,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "generator": describe_machine(),
        "levels": judge_levels(stages, total, levels),
        "outcomes": {name: total.outcomes[name] for name in Outcome.ALL},
        "whole": {f"p{percent}_ms": total.compute_percentile(percent) for percent in (50, 95, 99)},
        "where_ms": {stage: round(ms, 2) for stage, ms in total.compute_means().items()},
        "stages": rows,
    }
    (folder / "report.json").write_text(to_json(facts))
    with (folder / "report.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["users"])
        table.writeheader()
        table.writerows(rows)
    draw_chart(folder / "latency.png", stages, total)
    (folder / "report.html").write_text(render_html(facts, locust))
    print(render_text(facts))
    return all(level["met"] for level in facts["levels"])


def to_json(facts: object) -> str:
    """Return JSON for a file; NaN becomes null."""
    plain = json.loads(json.dumps(facts), parse_constant=lambda _: None)
    return json.dumps(plain, indent=2) + "\n"


def describe_machine() -> str:
    """Return the number of cores and the name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.machine()}"


def render_text(facts: Mapping[str, Any]) -> str:
    """Return the report for a terminal."""
    lines = [f"\n{facts['title']}", " ".join(f"{name:>14}" for name in _HEADERS)]
    lines += [" ".join(f"{value:>14g}" for value in row.values()) for row in facts["stages"]]
    lines.append(f"Outcomes: {facts['outcomes']}")
    lines.append(f"Time per photograph (mean, ms): {facts['where_ms']}")
    lines += [
        f"{'met' if level['met'] else 'MISSED'}: {level['level']} was {level['found']:.4g}, "
        f"wanted {level['wanted']}"
        for level in facts["levels"]
    ]
    return "\n".join(lines)


_HEADERS = ("users", "photographs/s", "p50 ms", "p95 ms", "p99 ms", "refused", "failed", "requests")

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
<p>{title}; {written}; load generator on {generator}.</p>
<h2>Service levels</h2>
<div><table><tr><th>level</th><th>limit</th><th>measured</th><th></th></tr>{levels}</table></div>
<h2>By stage of the shape</h2>
<div><table><tr>{heads}</tr>{rows}</table></div>
<p>All requests: {outcomes}. These and the service levels include the seconds in which users
start; the table does not.</p>
<img src="latency.png" alt="Latency over throughput, and time per photograph">
<h2>Time per photograph</h2>
<div><table><tr><th>stage</th><th>mean, ms</th></tr>{where}</table></div>
<p>The server's timings; "elsewhere" is the rest of the user's latency: queues, HTTP or gRPC,
the network.</p>
{locust}
</html>
"""


def render_html(facts: Mapping[str, Any], locust: str | None) -> str:
    """Return the report as HTML."""
    link = f'<p>By protocol and kind of photograph: <a href="{locust}">locust\'s report</a>.</p>'
    return _PAGE.format(
        title=html.escape(facts["title"]),
        written=facts["written"],
        generator=html.escape(facts["generator"]),
        levels="".join(_render_level(level) for level in facts["levels"]),
        outcomes=", ".join(f"{count} {name}" for name, count in facts["outcomes"].items()),
        heads="".join(f"<th>{head}</th>" for head in _HEADERS),
        rows="".join(
            _render_row(*(f"{value:g}" for value in row.values())) for row in facts["stages"]
        ),
        where="".join(_render_row(name, f"{ms:g}") for name, ms in facts["where_ms"].items()),
        locust=link if locust else "",
    )


def _render_level(level: Mapping[str, Any]) -> str:
    verdict = "met" if level["met"] else '<span class="missed">missed</span>'
    return _render_row(level["level"], level["wanted"], f"{level['found']:.4g}", verdict)


def _render_row(*values: str) -> str:
    return f"<tr>{''.join(f'<td>{value}</td>' for value in values)}</tr>"


def draw_chart(path: Path, stages: Sequence[StageResult], total: Tally) -> None:
    """Draw latency over throughput, one mark per stage, and the time per photograph."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    rates = [stage.rate for stage in stages]
    for percent in (50, 95, 99):
        left.plot(
            rates,
            [stage.tally.compute_percentile(percent) for stage in stages],
            marker="o",
            label=f"p{percent}",
        )
    for stage in stages:
        left.annotate(
            f"{stage.users:g}", (stage.rate, stage.tally.compute_percentile(50)),
            textcoords="offset points", xytext=(4, -12), fontsize=8,
        )  # fmt: skip
    left.set(
        xlabel="answered photographs per second",
        title="Latency for the users; the numbers are users",
    )
    left.set_xlim(left=0)
    use_log_scale(left)
    means = total.compute_means()
    right.barh(list(means), list(means.values()))
    right.invert_yaxis()
    right.set(xlabel="mean ms", title="Time per photograph")
    figure.savefig(path, dpi=110)


def use_log_scale(axes: "Axes") -> None:
    """Make the y axis logarithmic, in milliseconds with plain numbers."""
    from matplotlib.ticker import LogFormatter

    if math.isinf(axes.dataLim.minposy):  # no answers
        return
    axes.set(ylabel="ms", yscale="log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
