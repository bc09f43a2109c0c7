"""One worker of `rehue batch`, without Ray: stores and Tritons that fail, disks that are full."""

import asyncio
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from archives import write_archive
from faulty_store import FaultyStore, run_faulty_store

from rehue_serve.batch import colorizer, stores
from rehue_serve.batch.checks import check_locations
from rehue_serve.batch.colorizer import BatchColorizer
from rehue_serve.batch.manifest import Recipe, Record
from rehue_serve.batch.object_stores import open_store
from rehue_serve.batch.options import BatchFailed, Limits, Options
from rehue_serve.batch.sources import Source
from rehue_serve.batch.stores import LocalStore
from rehue_serve.settings import Settings
from rehue_serve.testing.s3 import S3, run_s3
from rehue_serve.testing.tritons import SleepingTriton

RECIPE = Recipe.build("rehue/1", {"model": "rehue"})
COUNT = 12


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colorizer, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(colorizer, "LONGEST_WAIT", 0.2)


@pytest.fixture
def options(tmp_path: Path, sleepers: list[SleepingTriton]) -> Options:
    sleepers[0].set_batch_seconds()
    source = write_archive(tmp_path / "source", COUNT)
    return Options(
        Source.parse(str(source)), str(tmp_path / "target"),
        Settings(triton_urls=(sleepers[0].url,)), limits=Limits(concurrency=4, patience=2.0),
        run="1",
    )  # fmt: skip


def colorize(options: Options) -> tuple[list[Record], str]:
    """Colorize the whole source in one window; returns its records, and why it stopped."""

    async def run() -> dict[str, list[str]]:
        worker = BatchColorizer(options, RECIPE)
        try:
            photographs = options.source.list_photographs()
            window = json.dumps([asdict(photograph) for photograph in photographs])
            return await worker({"window": [window]})
        finally:
            await worker.close()

    result = asyncio.run(run())
    return [Record(**record) for record in json.loads(result["records"][0])], result["stopped"][0]


def count_done(records: list[Record]) -> int:
    return sum(not record.failed for record in records)


def test_photographs_that_disappear_are_failures(options: Options) -> None:
    photographs = list(options.source.list_photographs())
    Path(photographs[3].location).unlink()
    source = options.source
    source.list_photographs = lambda: iter(photographs)  # type: ignore[method-assign]
    records, stopped = colorize(options)
    assert not stopped
    assert [record.reason for record in records if record.failed] == ["UNREADABLE"]


def test_a_photograph_over_the_byte_limit_is_not_read(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "read", lambda *_: pytest.fail("it was read"))
    settings = options.settings.model_copy(update={"max_bytes": 10})
    records, _ = colorize(replace(options, settings=settings))
    assert {record.reason for record in records} == {"IMAGE_TOO_LARGE"}


def test_a_full_disk_stops_the_job_at_once_and_leaves_nothing_unfinished(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    replace_file = Path.replace

    def fill_up(path: Path, target: Any) -> Path:  # stands for a disk of a few kilobytes
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        written.append(str(target))
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", fill_up)
    records, stopped = colorize(options)
    assert stopped == (
        f"cannot write to {options.target}: No space left on device: "
        + stopped.rpartition("device: ")[2]
    )
    assert count_done(records) == 5 == len(records)
    assert not list((Path(options.target) / ".rehue" / "unfinished").iterdir())


def test_a_job_stops_when_no_triton_answers_for_long(options: Options) -> None:
    settings = options.settings.model_copy(update={"triton_urls": ("127.0.0.1:9",)})
    records, stopped = colorize(replace(options, settings=settings))
    assert stopped == "no Triton answered for 2 s"
    assert not records


def test_photographs_that_a_triton_fails_on_are_tried_again(
    options: Options, sleepers: list[SleepingTriton]
) -> None:
    sleepers[0].start_failing()

    async def run() -> tuple[list[Record], str]:
        work = asyncio.to_thread(colorize, options)
        asyncio.get_running_loop().call_later(0.3, sleepers[0].stop_failing)
        return await work

    records, stopped = asyncio.run(run())
    assert not stopped
    assert count_done(records) > 0
    assert {record.reason for record in records if record.failed} <= {"INTERNAL"}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with run_s3("archive", "pictures") as server:
        yield server


@pytest.fixture
def store(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    with run_faulty_store(s3.port) as proxy:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        # Fewer and shorter attempts than by default, which are for real stores.
        monkeypatch.setattr("rehue_serve.batch.s3.READ_TIMEOUT", timedelta(seconds=1))
        monkeypatch.setattr("rehue_serve.batch.s3.MOST_RETRIES", 3)
        files = open_store("s3")
        import s3fs

        files._files = s3fs.S3FileSystem(
            use_listings_cache=False, skip_instance_cache=True,
            config_kwargs={"read_timeout": 1, "retries": {"max_attempts": 1}},
        )  # fmt: skip
        files._files.retries = 2
        monkeypatch.setattr(stores, "_open_store", lambda name: files if name else LocalStore())
        yield proxy


@pytest.fixture
def on_s3(options: Options, s3: S3) -> Options:
    s3.open_files().put(f"{options.source.root}/", "archive/", recursive=True)
    source = Source.parse("s3://archive")
    return replace(options, source=source, target=f"s3://pictures/{id(options)}")


@pytest.mark.parametrize("status", [500, 503, 0])
def test_a_store_that_fails_for_a_while_costs_nothing(
    on_s3: Options, store: FaultyStore, status: int
) -> None:
    list(on_s3.source.list_photographs())
    store.hang = 1.5
    patient = replace(on_s3, limits=replace(on_s3.limits, patience=60.0))
    few = 3 if status == 0 else 15
    # After the listing.
    photographs = list(patient.source.list_photographs())
    patient.source.list_photographs = lambda: iter(photographs)  # type: ignore[method-assign]
    store.faults = {"GET": [status] * few, "PUT": [status] * few}
    records, stopped = colorize(patient)
    assert not stopped
    assert count_done(records) == COUNT
    assert not store.faults["GET"]
    assert not store.faults["PUT"]


def test_a_store_that_is_gone_stops_the_job(on_s3: Options, store: FaultyStore) -> None:
    photographs = list(on_s3.source.list_photographs())
    on_s3.source.list_photographs = lambda: iter(photographs)  # type: ignore[method-assign]
    store.always = {"PUT": 503}
    records, stopped = colorize(on_s3)
    assert stopped.startswith("nothing can be read or written any more")
    assert count_done(records) == 0


def find_problem(options: Options) -> str:
    with pytest.raises(BatchFailed) as raised:
        check_locations(options)
    return str(raised.value)


def test_missing_buckets_and_refused_credentials_are_found_first(
    on_s3: Options, store: FaultyStore
) -> None:
    missing = "cannot be used: there is no such bucket or folder."
    assert missing in find_problem(replace(on_s3, source=Source.parse("s3://missing")))
    assert missing in find_problem(replace(on_s3, target="s3://missing/colour"))
    store.always = {"PUT": 403}
    assert "access is denied" in find_problem(on_s3)
    store.always = {"GET": 403}
    assert "access is denied" in find_problem(on_s3)


def test_a_rate_is_kept(options: Options) -> None:
    import time

    began = time.monotonic()
    records, _ = colorize(replace(options, limits=replace(options.limits, rate=8.0)))
    assert count_done(records) == COUNT
    assert time.monotonic() - began >= (COUNT - 1) / 8


def _colorize_with_poison() -> None:
    """Colorize with the options on standard input, and die when a certain photograph is read."""
    read = LocalStore.read

    def die(store: LocalStore, location: str) -> bytes:
        if location.endswith("00003.jpg"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(store, location)

    LocalStore.read = die  # type: ignore[method-assign,assignment]
    records, _ = colorize(pickle.load(sys.stdin.buffer))
    sys.stdout.buffer.write(pickle.dumps(records))


def test_a_photograph_that_kills_its_worker_twice_is_a_failure(options: Options) -> None:
    options = replace(options, run=options.target.replace("/", "-"))

    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, __file__], input=pickle.dumps(options), capture_output=True,
            check=False, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip

    assert [run().returncode for _ in range(2)] == [-signal.SIGKILL, -signal.SIGKILL]
    ended = run()
    assert ended.returncode == 0, ended.stderr
    records = pickle.loads(ended.stdout)
    assert count_done(records) == COUNT - 1
    (failed,) = [record for record in records if record.failed]
    assert (failed.reason, failed.source) == ("CRASHED", "box 0/00003.jpg")


if __name__ == "__main__":
    _colorize_with_poison()
