"""`rehue batch --dry-run` on a real Triton."""

from pathlib import Path

from archives import run_batch, write_archive

from rehue_serve.testing.tritons import SleepingTriton


def test_a_dry_run_counts_says_what_fails_and_writes_nothing(
    tmp_path: Path, sleepers: list[SleepingTriton]
) -> None:
    sleepers[0].set_batch_seconds()
    source, target = write_archive(tmp_path / "source", 20), tmp_path / "target"
    (source / "broken.jpg").write_bytes(b"no photograph")
    (source / "notes.txt").write_text("left out")
    variables = {"REHUE_TRITON_URLS": sleepers[0].url}
    code, printed = run_batch(source, target, "--dry-run", "--price", "2", **variables)
    assert code == 0, printed
    counted, left_out, took, failed, cost = printed.splitlines()
    assert counted.startswith("21 photographs to colorize, ")
    assert left_out == "left out: 1 .txt"
    assert failed.startswith("  broken.jpg: INVALID_IMAGE: ")
    assert "measured with 21 of them (1 failed)" in took
    assert cost == "costs about 0.00 at 2 an hour"
    assert not [path for path in target.rglob("*") if path.is_file()]
