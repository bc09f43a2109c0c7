"""checkov on all that `production` renders; what it finds fault with on purpose is in its file."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rendered import K8S, objects, pods

CHECKOV = Path(sys.prefix) / "checkov" / "bin" / "checkov"
ASK = "checkov is installed by `make k8s` (requirements/checkov.lock), not by `make test`"
needs_checkov = pytest.mark.skipif(not CHECKOV.exists(), reason=ASK)


def rendered(folder: Path, *, change: str = "") -> Path:
    """The objects as files, and Ray's pods as pods: checkov does not know a RayService."""
    ray = [
        {"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"],
         "metadata": pod["metadata"] | {"name": role, "namespace": "rehue"}}
        for role, pod in pods("production").items() if role.startswith("ray-")
    ]  # fmt: skip
    text = yaml.safe_dump_all([*objects("production"), *ray])
    (folder / "all.yaml").write_text(text.replace("readOnlyRootFilesystem: true", change or "")
                                     if change else text)  # fmt: skip
    return folder


def checkov(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [CHECKOV, "--config-file", K8S / "checkov.yaml", "--directory", folder, *words],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip


@needs_checkov
def test_nothing_is_found_but_what_is_explained(tmp_path: Path) -> None:
    done = checkov(rendered(tmp_path))
    assert done.returncode == 0, done.stdout[-4000:]
    assert "Passed checks: 0" not in done.stdout


@needs_checkov
def test_a_fault_is_found(tmp_path: Path) -> None:
    folder = rendered(tmp_path, change="readOnlyRootFilesystem: false")
    done = checkov(folder, "--check", "CKV_K8S_22")
    assert done.returncode == 1
    assert "CKV_K8S_22" in done.stdout


def test_every_exception_has_its_reason() -> None:
    """A comment on each line of the list."""
    lines = (K8S / "checkov.yaml").read_text().splitlines()
    skipped = [line for line in lines if line.strip().startswith("- CKV")]
    assert skipped
    assert all(" # " in line for line in skipped)
