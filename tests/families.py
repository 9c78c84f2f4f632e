"""Every family against tiny random models of the library: ``python -m tests.families [FAMILY...]``.

Each variant is imported, run in float64 and float32, generated from with a cache, written back,
loaded by the library's own class, and compared: logits, every tensor, every config field that is
read.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import hf_bridge
from builder.laws.caches import alike_up_to
from builder.model import Model
from hf_bridge.family import load_family
from hf_bridge.importing import import_config
from hf_bridge.normalise import normalise
from tests.hf_folders import make_tiny, read, tool

FLOAT64, FLOAT32 = 1e-9, 1e-5


@dataclass
class Examined:
    """What was found of one variant; ``wrong`` is empty if all is as it should be."""

    parameters: int = 0
    float64: float = float("inf")
    float32: float = float("inf")
    cached: float = float("inf")
    native: float = float("inf")
    wrong: list[str] = field(default_factory=list)


def examine(name: str, folder: Path, out: Path) -> Examined:
    """Carry a folder of this family over and back."""
    found = Examined()
    reference = load_file(folder / "reference.safetensors")
    ids = reference["input_ids"]
    model, _ = hf_bridge.from_hf(folder, family=name, dtype=torch.float64)
    found.parameters = sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        found.float64 = gap(model(ids), reference["logits_f64"])
        ids = ids[:, : alike_up_to(model)]  # a longer text is read by other angles at once
        found.cached = gap(in_steps(model, ids), model(ids))
    model, ids = hf_bridge.from_hf(folder, family=name)[0], reference["input_ids"]
    with torch.no_grad():
        found.float32 = gap(model(ids), reference["logits"])
    hf_bridge.to_hf(model, out, family=name)
    found.native = gap(logits_of_native(name, out, ids), reference["logits"])
    respelt, changed = other_fields(name, folder, out)
    native = FLOAT32 if respelt else 0.0  # of two names for one function each rounds its own way
    rounding = FLOAT32 * max(1.0, float(reference["logits"].abs().max()))
    limits = {"float64": FLOAT64, "cached": FLOAT64, "float32": rounding, "native": native}
    found.wrong += [
        f"{what}: {getattr(found, what):.1e} is above {limit:.0e}"
        for what, limit in limits.items()
        if not getattr(found, what) <= limit
    ]
    found.wrong += [*other_tensors(folder, out), *changed]
    return found


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


def in_steps(model: Model, ids: torch.Tensor) -> torch.Tensor:
    """A prompt at once, some tokens together, the rest one by one."""
    cache = model.new_cache(len(ids))
    ends = [9, 13, *range(14, ids.shape[1] + 1)]
    parts = zip([0, *ends], ends, strict=False)
    return torch.cat([model(ids[:, start:end], cache=cache) for start, end in parts], 1)


def logits_of_native(name: str, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = tool().load(folder, name)(ids).logits
    return logits


def other_tensors(folder: Path, out: Path) -> list[str]:
    """Tensors that were lost, added or changed."""
    theirs, ours = (load_file(one / "model.safetensors") for one in (folder, out))
    wrong = [f"{name} is in one of the two alone" for name in sorted(theirs.keys() ^ ours.keys())]
    return wrong + [
        f"{name} is changed"
        for name in sorted(theirs.keys() & ours.keys())
        if not torch.equal(theirs[name], ours[name])
    ]


def other_fields(name: str, folder: Path, out: Path) -> tuple[list[str], list[str]]:
    """Fields that the library's class finds otherwise in what was written: those that mean the
    same, and those that do not.

    What is left out may be written as the value that it stands for.
    """
    family = load_family(name)
    theirs, ours = (config_of(name, one) for one in (folder, out))
    told, written = (read(one / "config.json") for one in (folder, out))
    meant = [normalise(family, one) for one in (told, written)]
    same = {field for field in meant[0] if meant[0][field] == meant[1].get(field)}
    same |= {*family.ignore, *family.pin}
    respelt, changed = [], []
    for key in theirs:
        if not alike(theirs[key], ours.get(key), key, same):
            means = {recipe_of(name, told | new) for new in ({}, {key: written.get(key)})}
            line = f"config {key}: {theirs[key]!r} became {ours.get(key)!r}"
            (respelt if len(means) == 1 else changed).append(line)
    return respelt, changed


def recipe_of(name: str, config: dict[str, Any]) -> str:
    return import_config(config, name).text


def alike(a: Any, b: Any, path: str, same: set[str]) -> bool:
    """Equal, or known to be the same; a field of a dict that is null may be absent."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = a.keys() | b.keys()
        return all(alike(a.get(key), b.get(key), f"{path}.{key}", same) for key in keys)
    return bool(a == b) or path in same


def config_of(name: str, folder: Path) -> dict[str, Any]:
    """What the library's own config class makes of the file."""
    loaded: dict[str, Any] = tool().CONFIG_MAPPING[name].from_pretrained(folder).to_dict()
    return loaded


def variants(names: list[str]) -> list[tuple[str, int]]:
    known = tool().FAMILIES
    return [(name, k) for name in names or sorted(known) for k in range(len(known[name]))]


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    failed = 0
    for name, variant in variants(names):
        with tempfile.TemporaryDirectory() as scratch:
            folder = make_tiny(name, variant, Path(scratch) / "theirs")
            try:
                found = examine(name, folder, Path(scratch) / "ours")
            except Exception as error:
                found = Examined(wrong=[f"{type(error).__name__}: {error}"])
        numbers = f"{found.float64:.1e} {found.float32:.1e} {found.cached:.1e} {found.native:.1e}"
        print(f"{name} {variant}: {numbers}", *found.wrong, sep="\n    ", flush=True)
        failed += bool(found.wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
