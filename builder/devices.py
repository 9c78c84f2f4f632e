"""What computes: a device, and on the CPU how many threads."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from builder.errors import InputError


def pick_device(name: str | None) -> torch.device:
    """The device asked for, else a GPU if there is one.  InputError if it cannot be used."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        message = str(error).partition("\n")[0]
        raise InputError(
            "no-device", f"device {name!r} cannot be used: {message}", "--device cpu"
        ) from None


def use_physical_cores() -> None:
    """Two threads on one core only wait for each other; OMP_NUM_THREADS, if it is set, decides."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(physical_cores())


def physical_cores() -> int:
    """The cores that this process may use; elsewhere than on Linux what torch takes."""
    try:
        usable = os.sched_getaffinity(0)
        topology = Path("/sys/devices/system/cpu")
        siblings = {
            (topology / f"cpu{n}/topology/thread_siblings_list").read_text() for n in usable
        }
        return len(siblings)
    except (AttributeError, OSError):
        return torch.get_num_threads()
