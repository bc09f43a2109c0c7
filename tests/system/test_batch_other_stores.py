"""Google's and Azure's object stores, on their emulators; skipped where those are not installed.

pip install gcsfs adlfs gcp-storage-emulator; npm install -g azurite
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import wait_for

from rehue_serve.batch import lock, stores
from rehue_serve.batch.checks import check_locations
from rehue_serve.batch.lock import Lease, hold_target
from rehue_serve.batch.manifest import create_run_name
from rehue_serve.batch.options import BatchFailed, Options
from rehue_serve.batch.sources import Source
from rehue_serve.batch.stores import get_store
from rehue_serve.ports import claim_free_ports
from rehue_serve.settings import Settings

# The account and key that Microsoft documents for its emulator.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
NAMES = ["%41.jpg", "a  b#?%é*[1]+&=.jpg", "a.jpg", "box/b.jpg"]


def build_google(port: int) -> tuple[list[str], dict[str, str]]:
    """Return the emulator's command, and clients' variables."""
    if not importlib.util.find_spec("gcp_storage_emulator") or not importlib.util.find_spec(
        "gcsfs"
    ):
        pytest.skip("gcsfs or gcp-storage-emulator is not installed")
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--in-memory",
               "--host=127.0.0.1", f"--port={port}"]  # fmt: skip
    return command, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}


def build_azure(port: int) -> tuple[list[str], dict[str, str]]:
    azurite = shutil.which("azurite-blob")
    if not azurite or not importlib.util.find_spec("adlfs"):
        pytest.skip("adlfs or azurite is not installed")
    command = [azurite, "--inMemoryPersistence", "--skipApiVersionCheck", "--silent",
               "--blobHost", "127.0.0.1", "--blobPort", str(port)]  # fmt: skip
    endpoint = f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{endpoint}"
    return command, {"AZURE_STORAGE_CONNECTION_STRING": connection}


@pytest.fixture(
    scope="module", params=[("gs", build_google), ("az", build_azure)], ids=["gs", "az"]
)
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """A bucket of an emulator."""
    protocol, build = request.param
    (port,) = claim_free_ports(1)
    command, variables = build(port)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        emulator = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
        )
        stores._open_store.cache_clear()
        try:
            wait_for(lambda: make_bucket(protocol), 60)
            yield f"{protocol}://archive"
        finally:
            stores._open_store.cache_clear()
            emulator.kill()
            emulator.wait()


@pytest.fixture
def target(bucket: str) -> str:
    return f"{bucket}/{create_run_name()}"


def make_bucket(protocol: str) -> bool:
    import fsspec

    with contextlib.suppress(Exception):  # it does not listen yet
        fsspec.filesystem(protocol, skip_instance_cache=True).mkdir("archive")
        return True
    return False


def test_objects_are_written_listed_read_and_deleted(target: str) -> None:
    store = get_store(target)
    for name in NAMES:
        store.write(f"{target}/{name}", name.encode(), target)
    listed = {file.name: file for file in store.list_files(target)}
    assert sorted(listed) == NAMES
    for name, file in listed.items():
        assert store.read(f"{target}/{name}") == name.encode()
        assert store.describe(f"{target}/{name}").version == file.version
        assert file.size == len(name.encode())
    store.write(f"{target}/a.jpg", b"other", target)
    assert store.describe(f"{target}/a.jpg").version != listed["a.jpg"].version
    store.delete(f"{target}/a.jpg")
    with pytest.raises(FileNotFoundError):
        store.read(f"{target}/a.jpg")


def test_a_missing_bucket_is_found_first(target: str) -> None:
    source = f"{target}-scans"
    get_store(source).write(f"{source}/a.jpg", b"photograph", source)
    check_locations(Options(Source.parse(source), target, Settings()))
    missing = target.replace("archive", "missing")
    with pytest.raises(BatchFailed, match=r"The target .* cannot be used"):
        check_locations(Options(Source.parse(source), missing, Settings()))


def test_two_jobs_do_not_share_a_target(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 1.5)
    monkeypatch.setattr(lock, "SETTLE", 0.2)
    with hold_target(target), pytest.raises(BatchFailed, match="Another job"):
        Lease(target).take()
