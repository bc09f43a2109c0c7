"""An upgrade as a gateway sees it: Envoy in front of two clusters, the Service moves to the second.

KubeRay moves the Service `rehue` to the second Ray cluster in one step and deletes the first one
later. Envoy Gateway gives the new endpoints to Envoy, as this test does through a file. Scripted
servers stand in for the clusters.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from envoy import point_service_to, run_envoy
from load import Load

from rehue_serve.testing.scripted import Delay, ScriptedServer, serve

SECONDS = 0.3  # of a photograph


def switch_to(folder: Path, server: ScriptedServer) -> None:
    """Make a server the only endpoint of both protocols."""
    urls = {"http": server.http_url, "grpc": server.grpc_url}
    addresses = {protocol: [urlsplit(url).netloc] for protocol, url in urls.items()}
    point_service_to(folder, server.model, addresses)


def delay(_: bytes) -> Delay:
    return Delay(SECONDS)


def upgrade(folder: Path, steps: Callable[[Callable[[], None], Callable[[], None]], None]) -> Load:
    """Run steps under load, which are given the Service's switch and the end of the first cluster.

    Returns:
        The load, without retries; all photographs after it went to the second cluster.
    """
    first, second = (ScriptedServer(always=delay, model=f"rehue/{n}") for n in (1, 2))
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        running.enter_context(serve(first))
        stack.enter_context(serve(second))
        switch_to(folder, first)
        urls = stack.enter_context(run_envoy(folder))
        with Load(urls, b"a photograph", rate=20) as load:
            time.sleep(2)
            steps(lambda: switch_to(folder, second), running.close)
            time.sleep(2)
            before = len(first.requests)
            time.sleep(1)
        assert len(first.requests) == before > 20
        assert len(second.requests) > 20
    return load


def test_an_upgrade_loses_no_photograph(tmp_path: Path) -> None:
    def switch_then_end(switch: Callable[[], None], end: Callable[[], None]) -> None:
        switch()
        time.sleep(2)  # longer than a photograph takes, as rayClusterDeletionDelaySeconds is
        end()

    load = upgrade(tmp_path, switch_then_end)
    assert load.counts == {"ok": len(load.outcomes)}, set(map(str, load.errors))


def test_a_first_cluster_that_ends_before_the_switch_loses_some(tmp_path: Path) -> None:
    """So the test above would see a lost photograph."""

    def end_then_switch(switch: Callable[[], None], end: Callable[[], None]) -> None:
        end()
        time.sleep(1)
        switch()

    assert upgrade(tmp_path, end_then_switch).errors
