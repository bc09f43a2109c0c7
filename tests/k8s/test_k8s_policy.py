"""checkov on all that `production` renders; what it finds fault with on purpose is in its file."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rendered import K8S, get_object, list_pod_templates, render_overlay

CHECKOV = Path(sys.prefix) / "checkov" / "bin" / "checkov"


def test_nothing_is_found_but_what_is_explained(tmp_path: Path) -> None:
    """Ray's pods as pods, since checkov does not know a RayService; and a fault to be found."""
    if not CHECKOV.exists():
        asked = "checkov is installed by `make test` and `make k8s` (requirements/checkov.lock)"
        assert "CI" not in os.environ, asked
        pytest.skip(asked)
    ray = [
        {"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"],
         "metadata": pod["metadata"] | {"name": role, "namespace": "rehue"}}
        for role, pod in list_pod_templates("production").items() if role.startswith("ray-")
    ]  # fmt: skip
    fault = copy.deepcopy(get_object("production", "Deployment"))
    fault["metadata"]["name"] = "fault"
    container = fault["spec"]["template"]["spec"]["containers"][0]
    container["securityContext"]["readOnlyRootFilesystem"] = False
    text = yaml.safe_dump_all([*render_overlay("production"), *ray, fault])
    (tmp_path / "all.yaml").write_text(text)
    done = subprocess.run(
        [CHECKOV, "--config-file", K8S / "checkov.yaml", "--output", "json", "-d", tmp_path],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    found = json.loads(done.stdout)
    failed = [
        (failed_check["check_id"], failed_check["resource"])
        for failed_check in found["results"]["failed_checks"]
    ]
    assert failed == [("CKV_K8S_22", "Deployment.rehue.fault")]
    assert found["summary"]["passed"] > 100
    assert not found["summary"]["parsing_errors"]


def test_every_exception_has_its_reason() -> None:
    """A comment on each line of the list."""
    lines = (K8S / "checkov.yaml").read_text().splitlines()
    skipped = [line for line in lines if line.strip().startswith("- CKV")]
    assert skipped
    assert all(" # " in line for line in skipped)
