"""How many photographs in flight `rehue colorize` should have.

    python -m loadtest.inflight

The command colorizes the same folder with each number in turn, several rounds over, because
machines are noisy. What its start and its check of the server take is left out: the rate is that
of its own summary.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from loadtest.report import describe_machine
from loadtest.samples import create_mix
from rehue_serve.testing.servers import run_server

NUMBERS = (1, 2, 3, 4, 6, 8, 16)
SUMMARY = re.compile(r"(\d+) colorized in ([\d.]+) s")


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photographs", type=int, default=56, help="of loadtest.samples.MIX")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS)
    arguments = parser.parse_args()
    with run_server() as server, tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "photographs", arguments.photographs)
        rates: dict[int, list[float]] = {number: [] for number in arguments.numbers}
        for _ in range(arguments.rounds + 1):  # the first round warms up
            for number in arguments.numbers:
                rates[number].append(measure_rate(Path(folder), server.grpc_url, number))
    medians = {number: statistics.median(values[1:]) for number, values in rates.items()}
    print(f"Machine: {describe_machine()}\n\n| In flight | Photographs/s | Of the best |")
    print("| --- | --- | --- |")
    for number, rate in medians.items():
        print(f"| {number} | {rate:.1f} | {rate / max(medians.values()):.2f} |")
    return 0


def write_photographs(folder: Path, count: int) -> None:
    """Write photographs of the mix, one after another."""
    folder.mkdir()
    samples = create_mix().photographs
    for number in range(count):
        sample = samples[number % len(samples)]
        (folder / f"{number}.{sample.name.split()[0]}").write_bytes(sample.data)


def measure_rate(folder: Path, url: str, number: int) -> float:
    """Return the photographs per second of one run."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    program = str(Path(sys.executable).with_name("rehue"))
    words = [program, "colorize", str(folder / "photographs"), "-o", str(out)]
    options = ["--server", url, "--concurrency", str(number)]
    done = subprocess.run([*words, *options], check=True, capture_output=True, text=True)
    found = SUMMARY.search(done.stdout)
    if found is None:
        raise RuntimeError(f"the command ended with: {done.stdout}{done.stderr}")
    return int(found[1]) / float(found[2])


if __name__ == "__main__":
    sys.exit(main())
