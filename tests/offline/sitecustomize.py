"""On the path of every process that a test starts: no socket but to this machine."""

from __future__ import annotations

import sys


def refuse(event: str, given: tuple) -> None:
    """An audit hook: a connection to another machine is an error."""
    if event in ("socket.connect", "socket.sendto") and not _here(given[1]):
        raise OSError(f"no test reaches the network: {given[1]}")
    if event == "socket.getaddrinfo" and not _local(given[0]):
        raise OSError(f"no test reaches the network: {given[0]}")


def _here(address: object) -> bool:
    """Whether an address is this machine's: a path of its own, or loopback."""
    return not isinstance(address, tuple) or _local(address[0])


def _local(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    return name in (None, "", "localhost", "::1", "0.0.0.0", "::") or (
        isinstance(name, str) and (name.startswith(("127.", "::ffff:127.")) or name == NAME)
    )


def _name() -> str:
    import socket

    return socket.gethostname()


NAME = _name()
sys.addaudithook(refuse)
