"""`rehue batch --dry-run`: what a job would do, how long it would take and what it would cost."""

import asyncio
import json
import time
from dataclasses import asdict, dataclass, replace

from rehue_serve.batch.checks import check_collisions, check_locations, check_model
from rehue_serve.batch.colorizer import BatchColorizer
from rehue_serve.batch.index import Index
from rehue_serve.batch.manifest import Recipe, Record
from rehue_serve.batch.options import Options
from rehue_serve.batch.pending import list_pending
from rehue_serve.batch.progress import (
    MOST_LISTED,
    describe_bytes,
    describe_duration,
    describe_failures,
    describe_left_out,
)
from rehue_serve.batch.runtime import provide_triton
from rehue_serve.batch.sources import Photograph

SAMPLE = 64  # photographs that are colorized for the estimate, from all over the job


@dataclass(frozen=True)
class Estimate:
    """What a job would do.

    Attributes:
        size: bytes of the photographs.
        rate: photographs/s of all workers; 0: nothing to do, or the sample failed.
        failed: records of the photographs of the sample that failed.
        left_out: files that are not photographs, by suffix.
    """

    photographs: int
    size: int
    rate: float
    sample: int
    failed: list[Record]
    left_out: dict[str, int]
    price: float

    def describe(self) -> str:
        lines = [f"{self.photographs:,} photographs to colorize, {describe_bytes(self.size)}"]
        if self.left_out:
            lines.append(describe_left_out(self.left_out))
        if self.rate:
            seconds = self.photographs / self.rate
            lines.append(
                f"about {describe_duration(seconds)} at {self.rate:.1f} photographs/s, "
                f"measured with {self.sample} of them ({len(self.failed)} failed)"
            )
            lines += describe_failures(self.failed[:MOST_LISTED])
            if self.price:
                lines.append(
                    f"costs about {seconds / 3600 * self.price:,.2f} at {self.price:g} an hour"
                )
        return "\n".join(lines)


def estimate_job(options: Options) -> Estimate:
    """Count what is to do, and colorize a sample of it without writing.

    Raises:
        BatchFailed: a check failed, or Triton does not start.
    """
    check_locations(options)
    check_collisions(options)
    with provide_triton(replace(options, dry_run=True)) as options:
        recipe = check_model(options)
        count, size, sample = _count(options, recipe)
        records, seconds = asyncio.run(_colorize(options, recipe, sample))
    rate = len(records) / seconds * options.limits.workers if records else 0.0
    if options.limits.rate:
        rate = min(rate, options.limits.rate)
    failed = [record for record in records if record.failed]
    left_out = dict(options.source.left_out)
    return Estimate(count, size, rate, len(records), failed, left_out, options.price)


def _count(options: Options, recipe: Recipe) -> tuple[int, int, list[Photograph]]:
    """Count photographs and bytes, and choose a sample that is spread evenly."""
    count = size = 0
    step, sample = 1, []
    for photograph in list_pending(options, recipe, Index(options.target, options.run)):
        if count % step == 0:
            sample.append(photograph)
            if len(sample) == 2 * SAMPLE:
                sample, step = sample[::2], 2 * step
        count += 1
        size += max(0, photograph.size)
    return count, size, sample[:: -(-len(sample) // SAMPLE) or 1]


async def _colorize(
    options: Options, recipe: Recipe, sample: list[Photograph]
) -> tuple[list[Record], float]:
    """Colorize the sample; returns its records, and the seconds that it took."""
    colorizer = BatchColorizer(options, recipe)
    try:
        await colorizer({})  # starts it, so that the start is not measured
        began = time.monotonic()
        window = json.dumps([asdict(photograph) for photograph in sample])
        result = await colorizer({"window": [window]})
        seconds = time.monotonic() - began
    finally:
        await colorizer.close()
    return [Record(**record) for record in json.loads(result["records"][0])], seconds
