"""grpcio's channels to a target, with the same TLS, name and metadata as the load's own connections."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from holdfast_loadtests.access import Access
from holdfast_loadtests.targets import target_of


def channel_to(address: str, access: Access, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
    """A channel that shares its connection with nobody.

    Args:
        address: `host:port`.
        access: how to get at it.
        options: of grpcio, on top.

    Raises:
        InputError: files of its TLS cannot be used.
    """
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), *options]
    target = target_of(address, access.security, access.authority)
    if access.authority:
        own.append(("grpc.default_authority", access.authority))
    if access.security is None:
        return grpc.insecure_channel(address, options=own)
    own.append(("grpc.ssl_target_name_override", target.server_name))
    security = access.security
    ca, key, cert = (_content(name) for name in (security.ca or _system_ca(), security.key, security.cert))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert), options=own)


def _system_ca() -> str:
    """The file of the CAs that Python trusts; where there is none, grpcio's own are."""
    return ssl.get_default_verify_paths().cafile or ""


def _content(name: str) -> bytes | None:
    return Path(name).read_bytes() if name else None
