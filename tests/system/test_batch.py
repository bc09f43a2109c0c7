"""`rehue batch` on real Tritons, whose networks sleep: local folders, S3, kills and faults."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from archives import hash_files, kill_driver_when, run_batch, start_batch, write_archive
from systems import System

from rehue_serve.batch.manifest import list_parts, read_records
from rehue_serve.batch.report import REPORT
from rehue_serve.testing.s3 import S3, run_s3
from rehue_serve.testing.tritons import SleepingTriton

COUNT = 300  # photographs in the short form; 20,000 in the long one
CONCURRENCY = 32
BROKEN = "box 0/broken.jpg"


@pytest.fixture(scope="module")
def count(long: bool) -> int:
    return 20_000 if long else COUNT


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, count: int) -> Path:
    folder = write_archive(tmp_path_factory.mktemp("archive"), count)
    (folder / BROKEN).write_bytes(b"no photograph")
    (folder / "notes.txt").write_text("left out")
    return folder


@pytest.fixture(scope="module")
def triton(sleepers: list[SleepingTriton]) -> SleepingTriton:
    sleepers[0].set_batch_seconds()
    return sleepers[0]


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory, archive: Path, triton: SleepingTriton
) -> tuple[Path, str]:
    """The target and the output of an undisturbed run."""
    target = tmp_path_factory.mktemp("unbroken")
    code, printed = run_batch(archive, target, "--no-background", REHUE_TRITON_URLS=triton.url)
    assert code == 1, printed  # because of the broken one
    return target, printed


@pytest.mark.timeout(3600)
def test_every_photograph_gets_its_picture_and_its_record(
    unbroken: tuple[Path, str], archive: Path, count: int
) -> None:
    target, printed = unbroken
    assert f"{count:,} colorized" in printed
    assert f"in all: {count:,} done, 1 failed, 0 not tried" in printed
    assert "left out: 1 .txt" in printed
    assert "1 INVALID_IMAGE" in printed
    assert f"  {BROKEN}: INVALID_IMAGE: " in printed
    pictures = hash_files(target)
    assert pictures.keys() == hash_files(archive).keys() - {BROKEN, "notes.txt"}
    records = {record.source: record for record in read_records(str(target))}
    assert {name: record.output_sha256 for name, record in records.items()} == pictures | {
        BROKEN: ""
    }
    assert records[BROKEN].reason == "INVALID_IMAGE"
    assert records["box 0/00000.jpg"].model == "rehue/1"
    assert not list((target / ".rehue" / "unfinished").iterdir())
    assert len(list_parts(str(target))) == 1


def test_the_report_loads_nothing_and_says_what_failed(unbroken: tuple[Path, str]) -> None:
    html = (unbroken[0] / REPORT).read_text()
    assert "http" not in html
    assert BROKEN in html
    assert "INVALID_IMAGE" in html
    assert html.count("data:image/jpeg") == 24
    assert "<svg" in html


@pytest.fixture(scope="module")
def s3(archive: Path) -> Iterator[S3]:
    with run_s3("archive", "pictures") as server:
        server.upload(archive, "archive/scans")
        yield server


@pytest.mark.timeout(7200)
def test_a_job_on_s3_that_is_killed_loses_nothing_and_repeats_little(
    archive: Path, unbroken: tuple[Path, str], s3: S3, triton: SleepingTriton, count: int,
    long: bool, tmp_path: Path,
) -> None:  # fmt: skip
    arguments = ("s3://archive/scans", "s3://pictures/colour", "--no-background",
                 "--concurrency", CONCURRENCY)  # fmt: skip
    environment = s3.environment | {"REHUE_TRITON_URLS": triton.url}
    before = triton.count_photographs()
    for share in (0.3, 0.6) if long else (0.8,):
        process = start_batch(*arguments, **environment)
        kill_driver_when(process, partial(has_colorized, triton, before + share * count))
        assert process.returncode == 137
    code, printed = run_batch(*arguments, **environment)
    assert code == 1
    assert f"in all: {count:,} done, 1 failed, 0 not tried" in printed
    s3.download("pictures/colour", tmp_path)
    assert hash_files(tmp_path) == hash_files(unbroken[0])
    kills = 2 if long else 1
    colorized = triton.count_photographs() - before
    probes = kills + 1
    # At a kill: the photographs in the worker, in outcomes on their way (the more, the busier the
    # machine), and in unwritten records.
    assert colorized - count - probes <= kills * 5 * CONCURRENCY


def has_colorized(triton: SleepingTriton, photographs: float) -> bool:
    return triton.count_photographs() > photographs


@pytest.mark.timeout(900)
def test_a_job_joins_a_cluster(system: System, tmp_path: Path) -> None:
    (raylet, *_) = system.list_processes("raylet/raylet")
    (address,) = [
        word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--gcs-address=")
    ]
    source, target = write_archive(tmp_path / "source", 40), tmp_path / "target"
    code, printed = run_batch(source, target, "--address", address, **system.environment)
    assert code == 0, printed
    assert hash_files(target).keys() == hash_files(source).keys()
    assert len(system.list_replicas()) == 2
