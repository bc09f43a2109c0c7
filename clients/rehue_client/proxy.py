"""Proxies from the environment, as httpx and gRPC use them."""

import ipaddress
import os
from urllib.request import proxy_bypass

from rehue_client.target import Target

# gRPC reads only these, in lower case, whatever the scheme.
GRPC_VARIABLES: tuple[str, ...] = ("grpc_proxy", "https_proxy", "http_proxy")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine, which no proxy can reach on our behalf."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_proxy_variable(target: Target) -> str | None:
    """Return the name of the environment variable with the proxy for ``target``, if any."""
    if is_loopback(target.host) or proxy_bypass(target.host):
        return None
    if target.uses_grpc:
        names = GRPC_VARIABLES
    else:
        scheme = target.scheme
        names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name)), None)


def describe_route(target: Target) -> str:
    """Return the address, and which variable's proxy is used, for error messages.

    The proxy's own address is left out, because it may contain a password.
    """
    variable = find_proxy_variable(target)
    return f"{target} (through the proxy in {variable})" if variable else str(target)
