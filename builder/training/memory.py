"""When memory runs out: what a step needs by count, what it took, and what would fit."""

from __future__ import annotations

import math
import os
import resource
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from builder.errors import ResourceError
from builder.loss import at_once
from builder.measure import measure_memory
from builder.recipe import Recipe
from builder.training.settings import settings_of
from builder.training.world import World

SHOWN = 3  # edits
ROOM = 0.85  # of what is there, that a step may be counted to take: allocators keep some
CGROUP = Path("/sys/fs/cgroup/memory.max")
PAGE = os.sysconf("SC_PAGE_SIZE")


def out_of_memory(recipe: Recipe, world: World) -> ResourceError:
    """What there is to say: the count, the measured peak, and settings that would fit."""
    there, took, needs = available(world.device), peak(world.device), needed(recipe, world)
    counted = "" if needs is None else f"a step takes about {told(needs)} by count, "
    message = f"{counted}{told(there)} are there, and {told(took)} were in use at most"
    help = (
        ", or ".join(islice(edits(recipe, world), SHOWN))
        or "no edit of train alone would fit: a smaller model would"
    )
    return ResourceError("out-of-memory", message, help)


def edits(recipe: Recipe, world: World) -> Iterator[str]:
    """Settings with which a step fits, each with its bytes: those first that change no result."""
    settings = settings_of(recipe)
    batch, length = settings.batch, settings.length or recipe.graph.context
    single: list[dict[str, Any]] = [{"accumulate": n} for n in _doubled(batch // world.size)]
    single += [{"recompute": True}, {"loss_chunk": 256}]
    best = {"accumulate": max(1, batch // world.size), "recompute": True}
    together = [best, {**best, "loss_chunk": 256}]
    smaller = [{**best, "loss_chunk": 256, "length": n} for n in (length // 2, length // 4) if n]
    seen = set()
    there = available(world.device) * ROOM
    for edit in (*single, *together, *smaller):
        if tuple(edit) in seen:  # a lesser change of the same kind fits
            continue
        size = needed(changed(recipe, edit), world)
        if size is not None and size <= there:
            seen.add(tuple(edit))
            text = " ".join(f"train.{k}={str(v).lower()}" for k, v in edit.items())
            yield f"{text} ({told(size)})"


def _doubled(most: int) -> list[int]:
    return sorted({min(2**n, most) for n in range(1, max(2, most.bit_length() + 1))})


def changed(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    for name, value in settings.items():
        recipe = recipe.set(f"train.{name}", value)
    return recipe


def needed(recipe: Recipe, world: World) -> int | None:
    """Bytes of a step in one process, by count: what is kept, and logits with their gradient, which
    pass.  None if they cannot be known.
    """
    settings = settings_of(recipe)
    rows = math.ceil(settings.batch / settings.accumulate / world.size)
    length = settings.length or recipe.graph.context
    shards = world.size if world.shard else 1
    kept = measure_memory(recipe, length, rows, settings.dtype, shards).total
    vocab = recipe.graph.vocab
    passing = 2 * 4 * vocab * min(rows * length, at_once(settings.loss_chunk, vocab))
    return None if kept is None else kept + int(passing)


def available(device: torch.device) -> int:
    """Bytes that a step may use: all of a device, or the least of the system's limits, less what
    this process took to load.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [os.sysconf("SC_PHYS_PAGES") * PAGE - LOADED[1]]
    if CGROUP.exists() and (text := CGROUP.read_text().strip()).isdigit():
        limits.append(int(text) - LOADED[1])
    addresses = resource.getrlimit(resource.RLIMIT_AS)[0]
    if addresses != resource.RLIM_INFINITY:
        limits.append(addresses - LOADED[0])
    return min(limits)


def loaded() -> tuple[int, int]:
    """Bytes of addresses, and of memory, that this process has; 0 where nothing tells it."""
    try:
        pages = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0, 0
    return int(pages[0]) * PAGE, int(pages[1]) * PAGE


LOADED = loaded()


def peak(device: torch.device) -> int:
    """The most bytes in use so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def told(size: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
