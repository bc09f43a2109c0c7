"""What `rehue serve` may import before it has written Ray's environment."""

import subprocess
import sys


def test_server_does_not_import_ray_before_its_environment_is_set() -> None:
    """Ray would keep a token of its own, and its processes would refuse each other."""
    program = "import sys, rehue_serve.command, rehue_serve.server; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
