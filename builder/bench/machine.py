"""What numbers are measured on: versions, cores, and how busy it is just now."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("onepage-lm", "torch", "transformers", "pyyaml")


def described() -> str:
    """In two lines."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    load = ", ".join(f"{number:.2f}" for number in os.getloadavg())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"{python}, {versions}\n"
        f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} cores, "
        f"load {load}"
    )


def surroundings(**more: str) -> dict[str, str]:
    """The environment of what is measured: Python keeps what it compiles, as where a package is
    installed.
    """
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | more


def cores() -> int:
    """Those that this process may use, each counted once."""
    from builder.devices import physical_cores

    return physical_cores()


def _processor() -> str:
    """As the system names it; nothing where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "a processor"
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
