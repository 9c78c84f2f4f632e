"""What computes: a device, and on the CPU how many threads."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

import torch

from builder.errors import InputError

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them


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


def settle() -> None:
    """Make this process one that computes: as many threads as cores, and memory that is kept."""
    use_physical_cores()
    keep_memory()


def use_physical_cores() -> None:
    """Two threads on one core only wait for each other; OMP_NUM_THREADS, if it is set, decides."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(physical_cores())


def keep_memory() -> None:
    """Keep what is freed for what is allocated next.

    The GNU C library gives blocks of 128 kB and more back to the system, which clears every page of
    the next one: a quarter of a step's time.  It does so still with those above 16 MB.  Settings of
    the environment go before ours, and another library has other ways.
    """
    if os.environ.keys() & {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"}:
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    set_option(MMAP_THRESHOLD, 1 << 24)
    set_option(TRIM_THRESHOLD, (1 << 31) - 1)


def give_back_memory() -> None:
    """Give what was freed, and is kept, back to the system."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


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
