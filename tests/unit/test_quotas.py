"""Quotas of API keys: how they are written, what they allow, and what a refusal says."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from test_keys import started

from rehue_serve import keys, metrics
from rehue_serve.errors import QuotaExceeded, get_reason_name
from rehue_serve.quotas import DAY, Quota, Quotas, parse_quota
from rehue_serve.settings import SettingsError, load_settings
from rehue_serve.statuses import HTTP_STATUS

NOON = 20_000 * DAY + DAY / 2


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def count_allowed(quotas: Quotas, quota: Quota, tries: int) -> int:
    """Return how many of these photographs are admitted."""
    allowed = 0
    for _ in range(tries):
        try:
            quotas.take(quota)
        except QuotaExceeded:
            continue
        allowed += 1
    return allowed


def test_a_rate_allows_a_seconds_worth_at_once_and_then_the_rate() -> None:
    clock, quota = Clock(), Quota("museum", rate=4)
    quotas = Quotas(clock)
    assert count_allowed(quotas, quota, 100) == 4
    for _ in range(10):
        clock.now += 0.5
        assert count_allowed(quotas, quota, 100) == 2
    clock.now += 3600
    assert count_allowed(quotas, quota, 100) == 4


def test_a_slow_rate_says_when_the_next_one_may_come() -> None:
    clock, quota = Clock(), Quota("museum", rate=0.1)
    quotas = Quotas(clock)
    quotas.take(quota)
    clock.now += 4
    with pytest.raises(QuotaExceeded, match=r"0\.1 photographs per second") as caught:
        quotas.check(quota)
    assert caught.value.retry_after == pytest.approx(6)
    clock.now += 6.001
    quotas.check(quota)  # counts nothing
    quotas.take(quota)


def test_a_days_photographs_are_used_up_until_midnight() -> None:
    clock, quota = Clock(), Quota("museum", daily=3)
    quotas = Quotas(clock)
    assert count_allowed(quotas, quota, 10) == 3
    with pytest.raises(QuotaExceeded) as caught:
        quotas.check(quota)
    assert caught.value.retry_after == DAY / 2
    clock.now += DAY / 2
    assert count_allowed(quotas, quota, 10) == 3


def test_holders_do_not_use_each_others_quotas_and_keys_of_one_share_it() -> None:
    quotas = Quotas(Clock())
    assert count_allowed(quotas, Quota("museum", daily=3), 10) == 3
    assert count_allowed(quotas, Quota("archive", daily=3), 10) == 3
    assert count_allowed(quotas, Quota(), 10) == 10
    assert count_allowed(quotas, Quota("museum", daily=3), 10) == 0


def test_a_clock_set_back_adds_nothing() -> None:
    clock, quota = Clock(), Quota("museum", rate=1)
    quotas = Quotas(clock)
    assert count_allowed(quotas, quota, 5) == 1
    clock.now -= 100
    assert count_allowed(quotas, quota, 5) == 0


@pytest.mark.parametrize(
    "words",
    [
        "rate=5",  # no name
        "name=museum rate=fast",
        "name=museum rate=-1",
        "name=museum rate=inf",
        "name=museum daily=1.5",
        "name=museum name=other",
        "name=museum limit=5",
        "name=a/b",
        "name=",
        "museum",
    ],
)
def test_a_wrong_line_stops_the_start_and_is_not_repeated(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"good\n# a comment\nsecret-key {words}\n")
    monkeypatch.setenv("REHUE_API_KEYS_FILE", str(path))
    with pytest.raises(SettingsError, match=r"REHUE_API_KEYS_FILE.*line 3") as caught:
        load_settings()
    assert "secret-key" not in str(caught.value)


def test_a_line_is_parsed() -> None:
    assert parse_quota(["daily=10000", "name=museum", "rate=2.5"]) == Quota("museum", 2.5, 10000)
    assert parse_quota([]) == Quota()


def test_one_name_has_one_quota(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("old name=museum rate=5\nnew name=museum rate=5\n")
    assert len(keys.read_keys(path)) == 2
    path.write_text("old name=museum rate=5\nnew name=museum rate=6\n")
    with pytest.raises(ValueError, match="line 2"):
        keys.read_keys(path)


async def test_quotas_change_without_a_restart_and_a_wrong_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "RELOAD_INTERVAL", 0.02)
    path = tmp_path / "keys"
    path.write_text("secret-key name=museum rate=5\n")
    async with started(path) as api_keys:
        first = api_keys.authenticate("Bearer secret-key")
        assert first.quota == Quota("museum", 5)
        path.write_text("secret-key name=museum rate=fast\n")
        async with asyncio.timeout(10):
            while not caplog.records:
                await asyncio.sleep(0.02)
        assert api_keys.authenticate("Bearer secret-key") == first
        path.write_text("secret-key name=museum rate=9\n")
        async with asyncio.timeout(10):
            while api_keys.authenticate("Bearer secret-key").quota.rate != 9:
                await asyncio.sleep(0.02)
    assert "secret-key" not in caplog.text
    assert any(record.levelno == logging.WARNING for record in caplog.records)


def test_a_refusal_is_a_429_that_costs_no_error_budget() -> None:
    error = QuotaExceeded("used up", retry_after=1)
    assert HTTP_STATUS[type(error)] == 429
    assert get_reason_name(error) == "OVERLOADED"  # as clients know it
    assert error.outcome == "QUOTA"


def test_the_metric_has_names_and_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(metrics._key_uses, "inc", lambda tags: seen.append(tags))
    quotas = Quotas(Clock())
    count_allowed(quotas, Quota("museum", rate=1), 2)
    assert seen == [
        {"name": "museum", "outcome": "admitted"},
        {"name": "museum", "outcome": "rate"},
    ]


def test_the_settings_do_not_load_ray() -> None:
    """Ray reads its token when it is loaded, before the server has made one."""
    code = "import rehue_serve.settings, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
