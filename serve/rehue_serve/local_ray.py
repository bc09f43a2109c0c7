"""A Ray instance of this machine's own: its environment and its start."""

import logging
import os
import secrets
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import psutil

from rehue_serve import processes
from rehue_serve.ports import claim_free_ports
from rehue_serve.settings import Settings

log = logging.getLogger(__name__)

REPLICA_PORTS = 100  # of each protocol; a port stays unused for a while after its replica
START_ATTEMPTS = 3  # a busy machine sometimes misses Ray's own limit of 30 s
NO_DASHBOARD = b"127.0.0.1:9"  # an address at which nobody listens
OBJECT_STORE_BYTES = 80 * 2**20  # Ray's minimum; photographs never pass through it


class RayFailed(RuntimeError):
    """Ray did not start; the message says why."""


def start_ray(settings: Settings, directory: Path, spare: Collection[psutil.Process]) -> None:
    """Start Ray in this process, with its files in the directory.

    Args:
        spare: descendants of this process that are not Ray's.

    Raises:
        RayFailed: it did not start in several attempts.
    """
    import ray  # reads its environment when it is imported

    _leave_out_processes()
    for attempt in range(START_ATTEMPTS):
        try:
            ray.init(
                address="local",
                # Only counted by Ray; a redeployment runs old and new replicas side by side.
                num_cpus=max(2 * settings.replicas, os.cpu_count() or 1),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,  # `rehue_serve.logs` configures it
                _temp_dir=str(directory / f"ray{attempt}"),
                _metrics_export_port=settings.metrics_port,
            )
        except Exception as error:  # noqa: BLE001  # the type that Ray raises after its 30 s
            ray.shutdown()
            processes.end_processes(processes.list_descendants(), spare=spare)
            log.info("Ray did not start: %s", str(error).splitlines()[0])
        else:
            return
    raise RayFailed(
        f"Ray did not start in {START_ATTEMPTS} attempts. Is the machine busy? "
        "A start takes about 15 s on two cores."
    )


def _leave_out_processes() -> None:
    """Keep Ray from starting three processes that are not needed here.

    They take 170 MiB, and seconds of a start: the autoscaler's monitor, for a cluster that grows;
    the log monitor, which sends logs to a driver that does not take them; and the server of the
    dashboard, which is left out. Ray has no settings for it.
    """
    from ray._private import ray_constants
    from ray._private.node import Node

    def start_nothing(node: Node, **_: Any) -> None:
        # Else Ray's agent looks for the dashboard's address, and logs a fault, every second.
        node.get_gcs_client().internal_kv_put(
            ray_constants.DASHBOARD_ADDRESS.encode(),
            NO_DASHBOARD,
            True,
            ray_constants.KV_NAMESPACE_DASHBOARD,
        )

    for name in ("start_monitor", "start_log_monitor", "start_api_server"):
        setattr(Node, name, start_nothing)


def build_base_environment() -> dict[str, str]:
    """Return the environment variables for a Ray instance of this machine's own."""
    return {
        # Ray's default, 512 MiB and five backups for each of some 20 log files, would fill /tmp.
        "RAY_ROTATION_MAX_BYTES": str(32 << 20),
        "RAY_ROTATION_BACKUP_COUNT": "2",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Only holders of the token may give this Ray work. Without this Ray writes a token into
        # the home folder, and warns about it.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
        # With jemalloc's arenas and caches, one for each of their 30 threads, Ray's own processes
        # grow for hours although they leak nothing.
        "RAY_JEMALLOC_PROFILE": "raylet,gcs_server",
        "RAY_JEMALLOC_CONF": "narenas:1,tcache:false",
    }


def build_ray_environment(settings: Settings, directory: Path) -> dict[str, str]:
    """Return the environment variables for a Ray instance of this machine's own with Ray Serve.

    Raises:
        RayFailed: the command ``rehue-haproxy`` is not installed.
    """
    command = Path(sys.executable).with_name("rehue-haproxy")
    if not command.is_file():
        raise RayFailed(f"{command} is missing: install the package rehue again.")
    haproxy = directory / "haproxy"
    stats, metrics, fallback, rpc_fallback = claim_free_ports(4)
    # Ray's default ports are the same for every server of a machine, and they would share them.
    http, rpc = claim_free_ports(REPLICA_PORTS), claim_free_ports(REPLICA_PORTS)
    return build_base_environment() | {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(rpc_fallback),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http[-1]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(rpc[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(rpc[-1]),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # Ray's default, 0.1, takes more CPU at rest; a lost replica is noticed 0.4 s later.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(command),  # see `rehue_serve.haproxy`
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",  # it moves bytes; the cores are for photographs
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(max(1, round(settings.grace))),
        # Ray waits half a minute for load balancers in front to notice; there is none.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "0.5",
        # After 5 s on a busy machine Ray would restart HAProxy's manager, and the new HAProxy
        # would find its ports taken by the old one.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # It is no warning alone: a new controller kills every replica that it has not reached by
        # then, although it serves. The default, 30 s, is less than gRPC takes to find the new
        # address of a cluster's head, which restarts with another one.
        "RAY_SERVE_SLOW_STARTUP_WARNING_S": "600",
        "RAY_worker_niceness": "0",  # replicas are the service, not background work
    }
