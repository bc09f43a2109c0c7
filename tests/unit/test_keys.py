"""API keys: how the file is read, and which keys are valid while it changes or is missing."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rehue_serve import keys
from rehue_serve.errors import Unauthenticated, Unavailable
from rehue_serve.keys import ApiKeys
from rehue_serve.settings import SettingsError, load_settings


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RELOAD_INTERVAL", 0.02)


@contextlib.asynccontextmanager
async def started(path: Path) -> AsyncIterator[ApiKeys]:
    api_keys = ApiKeys(path)
    await api_keys.start()
    yield api_keys
    await api_keys.close()


def is_known(api_keys: ApiKeys, key: str) -> bool:
    try:
        api_keys.authenticate(f"Bearer {key}")
    except Unauthenticated:
        return False
    return True


async def wait_until_known(api_keys: ApiKeys, key: str) -> None:
    async with asyncio.timeout(10):
        while not is_known(api_keys, key):
            await asyncio.sleep(0.02)


async def test_comments_empty_lines_and_a_byte_order_mark_are_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbffirst\r\n# ours\n\n  second  \n#\n")
    async with started(path) as api_keys:
        assert is_known(api_keys, "first")
        assert is_known(api_keys, "second")
        for line in ("# ours", "#", "ours", "\ufefffirst"):
            assert not is_known(api_keys, line), line


async def test_callers_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("first\nsecond\n")
    async with started(path) as api_keys:
        first, again, second = (
            api_keys.authenticate(f"Bearer {key}") for key in ("first", "first", "second")
        )
    assert first == again != second


async def test_only_digests_of_keys_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("first-key\n")
    async with started(path) as api_keys:
        caller = api_keys.authenticate("Bearer first-key")
        assert "first-key" not in repr((vars(api_keys), caller))


async def test_keys_are_rotated_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("old\n")
    async with started(path) as api_keys:
        path.write_text("new\n")
        await wait_until_known(api_keys, "new")
        assert not is_known(api_keys, "old")


@pytest.mark.parametrize("how", ["gone", "unreadable", "empty", "comments"])
async def test_keys_read_last_stay_valid_while_the_file_has_none(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text("right\n")
    async with started(path) as api_keys:
        caplog.clear()
        path.unlink()
        if how == "unreadable":
            path.mkdir()
        elif how != "gone":
            path.write_text("" if how == "empty" else "# none\n")
        async with asyncio.timeout(10):
            while not caplog.records:  # the file was looked at since
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert is_known(api_keys, "right")
        assert not is_known(api_keys, "wrong")
        if how == "unreadable":
            path.rmdir()
        path.write_text("next\n")
        await wait_until_known(api_keys, "next")
        assert not is_known(api_keys, "right")
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) <= 2  # not one for each look
    assert "right" not in caplog.text


async def test_a_server_that_never_read_its_keys_is_unavailable(tmp_path: Path) -> None:
    async with started(tmp_path / "missing") as api_keys:
        with pytest.raises(Unavailable) as caught:
            api_keys.authenticate("Bearer any")
    assert str(tmp_path) not in str(caught.value)
    assert "Errno" not in str(caught.value)


def test_a_file_without_keys_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text("# none yet\n")
    monkeypatch.setenv("REHUE_API_KEYS_FILE", str(path))
    with pytest.raises(SettingsError, match=r"REHUE_API_KEYS_FILE.* has no keys"):
        load_settings()
