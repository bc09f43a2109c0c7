"""Jobs on S3: unusual names, deleted pictures, one job at a time."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from hashlib import sha256

import pytest
from obstore.exceptions import InvalidPathError

from rehue_serve.batch import lock, stores
from rehue_serve.batch.index import Index
from rehue_serve.batch.lock import Lease, Owner, hold_target
from rehue_serve.batch.manifest import (
    DONE,
    PICTURE_CHANGED,
    PICTURE_MISSING,
    Recipe,
    Record,
    Writer,
    create_run_name,
    hash_name,
    hash_version,
    read_records,
)
from rehue_serve.batch.options import BatchFailed, Options
from rehue_serve.batch.pending import list_pending
from rehue_serve.batch.pictures import Pictures, verify_pictures
from rehue_serve.batch.sources import Source
from rehue_serve.batch.stores import get_store
from rehue_serve.settings import Settings
from rehue_serve.testing.s3 import S3, run_s3

RECIPE = Recipe.build("rehue/1", {})
NAMES = [f"{number}.jpg" for number in range(4)]


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    stores._open_store.cache_clear()  # it remembers the last server
    with run_s3("archive", any_key=True) as server:
        yield server
    stores._open_store.cache_clear()


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lock, "LEASE", 1.5)
    monkeypatch.setattr(lock, "SETTLE", 0.2)
    return server


@pytest.fixture
def target(s3: S3) -> str:
    del s3
    return f"s3://archive/{create_run_name()}"


@pytest.mark.parametrize(
    "name", ["a.jpg", "a  b#?%é*[1]+&=.jpg", "%41.jpg", "x//b.jpg", "tab\t.jpg"]
)
def test_names_of_all_kinds_are_written_listed_and_read(target: str, name: str) -> None:
    store = get_store(target)
    store.write(f"{target}/{name}", b"photograph", target)
    assert [file.name for file in store.list_files(target)] == [name]
    assert store.read(f"{target}/{name}") == b"photograph"
    assert store.describe(f"{target}/{name}").size == len(b"photograph")


def test_an_odd_key_amid_pages_of_others_costs_none(
    target: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "d//e.jpg", "f.jpg", "g/.h.jpg", "i/j.jpg"]
    for name in names:
        s3.open_files().pipe_file(f"{target}/{name}", b"x")
    expected = [name for name in names if ".h" not in name]
    assert [file.name for file in get_store(target).list_files(target)] == expected
    prefix = target.removeprefix("s3://archive/")

    def list_first_page(*_: object, **__: object) -> Iterator[list[dict[str, object]]]:
        yield [{"path": f"{prefix}/{name}", "size": 1, "e_tag": '"1"'} for name in names[:2]]
        raise InvalidPathError

    monkeypatch.setattr("obstore.list", list_first_page)
    assert [file.name for file in get_store(target).list_files(target)] == expected


def test_objects_that_stand_for_folders_are_no_files(target: str, s3: S3) -> None:
    files = s3.open_files()
    for name in ("", "k/", "k/a.jpg"):
        files.pipe_file(f"{target}/{name}", b"x" if name.endswith("jpg") else b"")
    assert [file.name for file in get_store(target).list_files(target)] == ["k/a.jpg"]


def test_objects_keep_their_media_type(target: str, s3: S3) -> None:
    get_store(target).write(f"{target}/a.tif", b"x", target)
    files = s3.open_files()
    assert files.info(f"{target}/a.tif")["ContentType"] == "image/tiff"


def test_what_is_missing_is_said_without_an_address_or_a_query(target: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such object or bucket") as raised:
        get_store(target).read(f"{target}/none.jpg")
    assert "http" not in str(raised.value)


@pytest.fixture
def options(target: str) -> Options:
    """The options of a finished job."""
    source = target.replace("archive/", "archive/source-")
    store = get_store(target)
    for name in NAMES:
        store.write(f"{source}/{name}", b"photograph", source)
    options = Options(Source.parse(source), target, Settings(), run="2")
    writer = Writer(target, "1")
    for photograph in options.source.list_photographs():
        store.write(f"{target}/{photograph.output}", b"picture", target)
        writer.add(
            Record(
                photograph.name, photograph.output, DONE, run="1", key=hash_name(photograph.name),
                fingerprint=hash_version(photograph, RECIPE),
                output_sha256=sha256(b"picture").hexdigest(),
            )
        )  # fmt: skip
    writer.flush()
    return options


def list_names(options: Options) -> list[str]:
    index, pictures = Index(options.target, options.run), Pictures(options.target)
    return [photograph.name for photograph in list_pending(options, RECIPE, index, pictures)]


def test_a_deleted_picture_is_noticed(options: Options) -> None:
    assert list_names(options) == []
    get_store(options.target).delete(f"{options.target}/2.jpg")
    assert list_names(options) == ["2.jpg"]


def test_pictures_that_are_missing_or_changed_are_found_and_done_again(options: Options) -> None:
    store, target = get_store(options.target), options.target
    store.delete(f"{target}/2.jpg")
    store.write(f"{target}/1.jpg", b"pictura", target)
    found = verify_pictures(options)
    assert (found.checked, found.missing, found.changed) == (4, 1, 1)
    reasons = {record.source: record.reason for record in read_records(target)}
    expected = {"0.jpg": "", "1.jpg": PICTURE_CHANGED, "2.jpg": PICTURE_MISSING, "3.jpg": ""}
    assert reasons == expected
    assert list_names(replace(options, run="3")) == ["1.jpg", "2.jpg"]


def write_lock(target: str, owner: Owner) -> None:
    get_store(target).write(f"{target}/.rehue/lock", json.dumps(asdict(owner)).encode(), target)


def test_two_jobs_do_not_share_a_target(target: str) -> None:
    with hold_target(target):
        with pytest.raises(BatchFailed, match=r"Another job is writing to s3://.*: process \d+ on"):
            Lease(target).take()
        with pytest.raises(BatchFailed, match="Another job"), hold_target(target):
            pass
    with hold_target(target):
        pass


def test_of_two_jobs_that_start_at_once_one_goes_on(target: str) -> None:
    results: list[str] = []
    ended = threading.Event()

    def take() -> None:
        try:
            with hold_target(target):  # renewed: on a busy machine the other one comes later
                results.append("held")
                ended.wait(30)
        except BatchFailed:
            results.append("refused")
            ended.set()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["held", "refused"]


def test_a_lock_of_a_process_that_is_gone_is_taken_at_once(target: str) -> None:
    write_lock(target, replace(Owner.describe_own(), began=1.0))
    began = time.monotonic()
    with hold_target(target):
        assert time.monotonic() - began < 1.5


def test_a_lock_of_another_machine_that_is_not_renewed_is_taken_later(target: str) -> None:
    write_lock(target, replace(Owner.describe_own(), place="elsewhere", host="elsewhere"))
    began = time.monotonic()
    with hold_target(target):
        assert time.monotonic() - began >= 1.5


def test_a_job_notices_that_another_one_took_its_target(target: str) -> None:
    with hold_target(target) as held:
        write_lock(target, replace(Owner.describe_own(), host="elsewhere"))
        deadline = time.monotonic() + 10
        while not held.problem and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "on elsewhere" in held.problem
    assert get_store(target).read(f"{target}/.rehue/lock")  # which is not ours to delete
