"""On the path of every process that a test starts: no socket but to this machine."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache


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
    if name in (None, "", "localhost", "::1", "0.0.0.0", "::"):
        return True
    return isinstance(name, str) and (
        name.startswith(("127.", "::ffff:127.")) or name in own_names()
    )


@cache
def own_names() -> frozenset[str]:
    """What this machine is called, and its addresses: torchrun meets its processes there."""
    import socket  # most processes need none

    name = socket.gethostname()
    names = {name, socket.getfqdn()}
    with suppress(OSError):
        names |= set(socket.gethostbyname_ex(name)[2])
    return frozenset(names)


sys.addaudithook(refuse)
