"""The Helm chart, rendered by Helm itself (as a library), against what kustomize renders."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendered import K8S, KUBECTL, Object, render_overlay

PYTHON = Path(sys.prefix) / "helm" / "bin" / "python"
RENDER = """
import json, sys
from helm_python.chart import Chart
chart = Chart.load(sys.argv[1])
for values in json.loads(sys.argv[2]):
    try:
        chart.validate_schema(values)
        print(json.dumps(chart.render(values)["rehue/templates/overlay.yaml"]))
    except Exception as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as `make chart` packs it."""
    if not PYTHON.exists():
        asked = "Helm is installed by `make test` and `make k8s` (requirements/helm.lock)"
        assert "CI" not in os.environ, asked
        pytest.skip(asked)
    folder = tmp_path_factory.mktemp("chart")
    environment = os.environ | {"KUBECTL": str(KUBECTL), "PYTHON": str(PYTHON)}
    subprocess.run([K8S / "build-chart", folder], env=environment, check=True)
    (packed,) = folder.glob("rehue-*.tgz")
    return packed


def render(chart: Path, *values: Object) -> list[list[Object]]:
    """Return the objects for each of the values.

    Raises:
        ValueError: Helm refuses some of them.
    """
    command = [PYTHON, "-c", RENDER, chart, json.dumps(values)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # type: ignore[arg-type]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for result in results:
        if isinstance(result, dict):
            raise ValueError(result["error"])
    return [[each for each in yaml.safe_load_all(text) if each] for text in results]


def index_objects(manifests: Any) -> dict[tuple[str, str], Object]:
    found = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    assert len(found) == len(manifests)
    return found


def test_the_chart_renders_what_kustomize_renders(chart: Path) -> None:
    overlays = ("cpu", "gpu", "production", "canary")
    values = [{"overlay": overlay, "createNamespace": True} for overlay in overlays]
    for overlay, rendered in zip(overlays, render(chart, *values), strict=True):
        assert index_objects(rendered) == index_objects(render_overlay(overlay)), overlay


def test_values_change_what_they_name_and_nothing_else(chart: Path) -> None:
    fewer: Object = {"kind": "ScaledObject", "name": "rehue-triton", "merge": {}}
    fewer["merge"] = {"spec": {"maxReplicaCount": 3}}
    values = {
        "overlay": "production",
        "images": {"serve": {"repository": "registry.example.com/serve", "tag": "9.9.9"}},
        "settings": {"REHUE_MAX_REQUESTS": 32},
        "gateway": {"host": "photos.example.org", "grpcHost": "grpc.example.org"},
        "patches": [fewer],
    }
    (rendered,) = render(chart, values)
    text = yaml.safe_dump_all(rendered)
    before = yaml.safe_dump_all(render_overlay("production"))
    assert text.count("registry.example.com/serve:9.9.9") == before.count("rehue/serve:0.1.0") == 2
    assert "rehue.example.com" not in text
    assert text.count("grpc.example.org") == before.count("grpc.rehue.example.com")
    found = index_objects(rendered)
    assert found["ScaledObject", "rehue-triton"]["spec"]["maxReplicaCount"] == 3
    assert found["ScaledObject", "rehue-triton"]["spec"]["minReplicaCount"] == 2
    assert ("Namespace", "rehue") not in found
    # A setting's ConfigMap has another name, with which KubeRay starts another cluster.
    (name,) = [name for kind, name in found if name.startswith("rehue-settings-")]
    given = index_objects(render_overlay("production"))
    assert ("ConfigMap", name) not in given
    assert found["ConfigMap", name]["data"]["REHUE_MAX_REQUESTS"] == "32"
    assert text.count(name) == 3  # its own, the head's and the workers'
    assert len(found) == len(given) - 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"overlay": "big"}, "overlay"),
        ({"overlays": "gpu"}, "overlays"),
        ({"settings": {"MAX_REQUESTS": 1}}, "MAX_REQUESTS"),
        ({"images": {"serve": {"repository": "Not A Name"}}}, "repository"),
        ({"patches": [{"kind": "Deployment"}]}, "merge|name"),
        (
            {"patches": [{"kind": "Deployment", "name": "other", "merge": {}}]},
            "a patch names no object",
        ),
    ],
)
def test_wrong_values_are_refused(chart: Path, values: Object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        render(chart, values)
