"""Open-loop load: photographs arrive independently of the answers to earlier ones.

    make openloop ARGS="--url grpc://127.0.0.1:9000 --limit 500"
    make openloop ARGS=--overhead

The first finds the highest rate of Poisson arrivals at which the 99th percentile stays
within the limit (ms), and draws latency over the offered load for the server and for the
bare model (the ONNX file in ONNX Runtime on this machine). The second measures the
generator itself against an echo server. Latency runs from when a photograph was due to be
sent, so a stall of the server or of the generator counts against every photograph that
was due during it (no coordinated omission). Both write to results/loadtest.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest.arrivals import (
    TIMEOUT,
    Colorize,
    RateResult,
    find_highest_rate,
    measure_rate,
    print_result,
)
from loadtest.bare_model import BareModel
from loadtest.report import describe_machine, to_json, use_log_scale
from loadtest.samples import ROOT, create_squares
from rehue_client import AsyncClient, Retries
from rehue_serve import processes
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.servers import wait_for_answer

OUT = ROOT / "results" / "loadtest"


@contextlib.asynccontextmanager
async def open_client(url: str, *, model: str | None = None) -> AsyncIterator[Colorize]:
    """Yield the SDK's `colorize` without retries, which would hide errors of the server."""
    async with AsyncClient(url, retries=Retries(attempts=1), timeout=TIMEOUT) as client:
        yield lambda photograph: client.colorize(photograph, model=model)


async def compare_with_bare_model(
    url: str, model: str, limit: float, seconds: float
) -> dict[str, Any]:
    """Find the highest rate of the server and of the bare model.

    Raises:
        SystemExit: no server is ready at ``url``.
    """
    async with AsyncClient(url) as client:
        if not await client.ready():
            raise SystemExit(f"no server is ready at {url}: `make serve` starts one")
    photographs = create_squares()
    async with open_client(url, model=model) as colorize:
        await measure_rate(colorize, photographs, 4, 2)  # warms up
        print(f"{url}, {model}:", file=sys.stderr)
        served, results = await find_highest_rate(colorize, photographs, limit, seconds, start=4)
    bare_model = BareModel(model)
    try:
        print(f"the bare model, {model}:", file=sys.stderr)
        bare, bare_results = await find_highest_rate(
            bare_model.infer, photographs, limit, seconds, start=4
        )
    finally:
        bare_model.close()
    return {
        "url": url,
        "model": model,
        "machine": describe_machine(),
        "limit_ms": limit,
        "seconds": seconds,
        "highest_rate": {"served": served, "bare": bare},
        "served": [asdict(result) for result in results],
        "bare": [asdict(result) for result in bare_results],
    }


def draw_chart(
    path: Path, facts: dict[str, Any], served: Sequence[RateResult], bare: Sequence[RateResult]
) -> None:
    """Draw the 50th and 99th percentile over the offered rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for results, name, color in ((served, facts["url"], "C0"), (bare, "bare model", "C1")):
        for percent, style in (("p50", "--"), ("p99", "-")):
            axes.plot(
                [result.offered for result in results],
                [getattr(result, percent) for result in results],
                style, marker="o", color=color, label=f"{name}, {percent}",
            )  # fmt: skip
    axes.axhline(facts["limit_ms"], color="gray", linewidth=1, label="limit")
    axes.set(
        xlabel="offered photographs per second",
        title="Latency from due to answered",
        xlim=(0, None),
    )
    use_log_scale(axes)
    figure.savefig(path, dpi=110)


async def measure_overhead(seconds: float) -> dict[str, Any]:
    """Measure the generator against an echo server, over both protocols."""
    found: dict[str, list[dict[str, object]]] = {}
    photographs = create_squares()
    http, grpc = claim_free_ports(2)
    echo = subprocess.Popen(  # noqa: ASYNC220 (nothing else runs yet)
        processes.bind_to_parent([sys.executable, "-m", "loadtest.echo", str(http), str(grpc)]),
        cwd=ROOT,
    )
    try:
        await asyncio.to_thread(wait_for_answer, f"http://127.0.0.1:{http}/", echo)
        for url in (f"grpc://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}"):
            protocol = url.partition(":")[0]
            async with open_client(url) as colorize:
                await measure_rate(colorize, photographs, 20, 1)  # warms up
                print(f"an echo server, {protocol}:", file=sys.stderr)
                results = [
                    await measure_rate(colorize, photographs, rate, seconds)
                    for rate in (25, 100, 200)
                ]
            for result in results:
                print_result(result)
            found[protocol] = [asdict(result) for result in results]
    finally:
        echo.terminate()
        echo.wait()
    return {"machine": describe_machine(), "seconds": seconds, "echo": found}


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="grpc://127.0.0.1:9000")
    parser.add_argument("--model", default="rehue")
    parser.add_argument("--limit", type=float, default=500.0, help="of the 99th percentile, ms")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each rate")
    parser.add_argument("--overhead", action="store_true", help="measure only the generator")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if arguments.overhead:
        facts = asyncio.run(measure_overhead(arguments.seconds))
        (OUT / "overhead.json").write_text(to_json(facts))
        return 0
    facts = asyncio.run(
        compare_with_bare_model(arguments.url, arguments.model, arguments.limit, arguments.seconds)
    )
    (OUT / "openloop.json").write_text(to_json(facts))
    served, bare = ([RateResult(**result) for result in facts[name]] for name in ("served", "bare"))
    draw_chart(OUT / "openloop.png", facts, served, bare)
    rates = facts["highest_rate"]
    print(f"Highest rate with p99 <= {arguments.limit:g} ms, photographs/s: {rates}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
