"""What this machine has, and whether it does what training asks of it."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from builder.devices import physical_cores, pick_device

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyyaml", "filelock")
ADVISORIES = (  # package, the first version without it, what it is
    ("torch", "2.6.0", "CVE-2025-32434: a checkpoint runs code, even with weights_only"),
    ("torch", "2.10.0", "CVE-2026-24747: a checkpoint corrupts memory, even with weights_only"),
    ("transformers", "5.3.0", "CVE-2026-4372: a config.json runs code, without trust_remote_code"),
    ("pyyaml", "5.4", "CVE-2020-14343: full_load runs code"),
    ("filelock", "3.20.3", "CVE-2025-68146, CVE-2026-22701: a link in a lock's place is followed"),
)
LEAST_DISK = 5e9
SECONDS = 0.8  # of each probe: all of them take about five
SIZE = 1024  # of the matrices that are multiplied


@dataclass(frozen=True)
class Sign:
    """A line of the answer; ``fault`` is what is wrong with it, if something is."""

    what: str
    told: str
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.what:<14}{self.told}" + (f"\n{'':<14}! {self.fault}" if self.fault else "")


def examine(home: Path, device: str | None = None) -> Iterator[Sign]:
    """Every sign, each as soon as it is known; ``home`` is where runs are."""
    chosen = pick_device(device)
    yield Sign("python", f"{platform.python_version()} on {platform.platform()}")
    yield from packages()
    yield threads()
    yield memory(chosen)
    yield disk(home)
    yield speed(chosen)
    yield attention(chosen)
    yield compiler()


def packages() -> Iterator[Sign]:
    """The version of each package, with the advisories that are known of it."""
    for name in PACKAGES:
        version = metadata.version(name)
        known = [
            f"{what} (mended in {mended})"
            for package, mended, what in ADVISORIES
            if package == name and numbers(version) < numbers(mended)
        ]
        yield Sign(name, version, "; ".join(known))


def numbers(version: str) -> tuple[int, ...]:
    """``2.13+cpu`` as (2, 13, 0)."""
    parts = (*version.partition("+")[0].split("."), "0", "0")[:3]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)


def threads() -> Sign:
    cores, asked = physical_cores(), os.environ.get("OMP_NUM_THREADS")
    told = f"{cores} physical cores, {os.cpu_count()} logical"
    told += f"; OMP_NUM_THREADS={asked}" if asked else f"; training takes {cores} threads"
    over = asked is not None and asked.isdigit() and int(asked) > cores
    return Sign("threads", told, "more threads than cores wait for each other" if over else "")


def memory(device: torch.device) -> Sign:
    from builder.training.memory import available, told

    name = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return Sign("memory", f"{told(available(device))} for training on {device}{name}")


def disk(home: Path) -> Sign:
    """Room for runs, and how fast a checkpoint is written and synced."""
    from builder.training import disk as writing
    from builder.training.memory import told

    where = next(path for path in (home, *home.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(where).free
    fault = "little room for checkpoints" if free < LEAST_DISK else ""
    try:
        with TemporaryDirectory(dir=where) as folder:
            path, tensor = Path(folder) / "speed.safetensors", torch.zeros(32_000_000 // 4)
            began = time.perf_counter()
            writing.save(path, {"zeros": tensor})
            writing.sync(path)
            rate = tensor.nbytes / (time.perf_counter() - began)
    except OSError as error:
        return Sign("disk", f"{told(free)} free at {where}", f"not written: {error.strerror}")
    return Sign("disk", f"{told(free)} free at {where}, written at {told(int(rate))}/s", fault)


def speed(device: torch.device) -> Sign:
    """Products in both precisions of ``train.dtype``, and how fast memory is read."""
    rates = {
        name: 2 * SIZE**3 / seconds(product_of(dtype, device), device) / 1e9
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    data = torch.zeros(64_000_000 // 4, device=device)
    read = data.nbytes / seconds(data.sum, device) / 1e9
    products = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    told = f"products: {products} GFLOP/s; memory read at {read:.0f} GB/s"
    slow = rates["bf16"] < rates["fp32"]
    return Sign("speed", told + "; leave train.dtype at fp32 here" * slow)


def product_of(dtype: torch.dtype, device: torch.device) -> Callable[[], torch.Tensor]:
    one, two = (torch.ones(SIZE, SIZE, dtype=dtype, device=device) for _ in range(2))
    return lambda: one @ two


def seconds(act: Callable[[], object], device: torch.device) -> float:
    """The least that something takes, tried for a while."""
    best, end = float("inf"), time.perf_counter() + SECONDS
    while True:
        began = time.perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        best = min(best, now - began)
        if now >= end:
            return best


def attention(device: torch.device) -> Sign:
    """The backends of scaled_dot_product_attention that work here, forward and back."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    working = []
    for backend in SDPBackend.__members__.values():
        q, k, v = (
            torch.ones(1, 2, 8, 64, dtype=dtype, device=device, requires_grad=True)
            for _ in range(3)
        )
        try:
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()  # type: ignore[no-untyped-call]
        except RuntimeError:
            continue
        working.append(backend.name.lower().removesuffix("_attention"))
    return Sign("attention", ", ".join(working), "" if working else "no backend works")


def compiler() -> Sign:
    found = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    return Sign("compiler", found or "none: torch.compile needs one on a CPU")
