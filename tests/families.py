"""Every family against tiny random models of the library: ``python -m tests.families [FAMILY...]``.

Each variant is imported, run in float64 and float32, generated from with a cache, written back,
loaded by the library's own class, and compared: logits, every tensor, every config field that is
read.  Without names, what was found becomes the table of docs/families.md.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import hf_bridge
from builder.laws.caches import alike_up_to
from builder.model import Model
from hf_bridge.family_files import FOLDER, load_family
from hf_bridge.importing import import_config
from hf_bridge.normalise import normalise
from tests.hf_folders import ROOT, make_tiny, read, tool

FLOAT64, FLOAT32 = 1e-9, 1e-5
PAGE = ROOT / "docs" / "families.md"


@dataclass
class Examined:
    """What was found of one variant; ``wrong`` is empty if all is as it should be."""

    parameters: int = 0
    float64: float = float("inf")
    float32: float = float("inf")
    cached: float = float("inf")
    native: float = float("inf")
    theirs: float = float("inf")  # the library's own cache against its own full forward
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


def look(name: str, variant: int) -> Examined:
    """A variant examined in scratch folders, with what the library's own cache does."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_tiny(name, variant, Path(scratch) / "theirs")
        try:
            found = examine(name, folder, Path(scratch) / "ours")
            found.theirs = gap_of_their_cache(name, folder)
        except Exception as error:
            found = Examined(wrong=[f"{type(error).__name__}: {error}"])
    return found


def gap_of_their_cache(name: str, folder: Path) -> float:
    """How far the library's class, token by token, is from its own full forward, in float32.

    Not a number where it has no cache.
    """
    model = tool().load(folder, name)
    ids = load_file(folder / "reference.safetensors")["input_ids"]
    past, steps = None, []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the argument is to be called cache
        full = model(ids).logits
        for start, end in itertools.pairwise([0, *range(9, ids.shape[1] + 1)]):
            out = model(ids[:, start:end], past_key_values=past, use_cache=True)
            past = getattr(out, "past_key_values", None)
            if past is None:
                return float("nan")
            steps.append(out.logits)
    return gap(torch.cat(steps, 1), full)


def row(name: str, found: list[Examined]) -> str:
    """A family's line in the table: the worst of its variants."""
    lines = len((FOLDER / f"{name}.yaml").read_text("utf-8").splitlines())

    def worst(what: str) -> str:
        values = [getattr(one, what) for one in found]
        largest = max(values, key=lambda value: (value != value, value))
        return "none" if largest != largest else f"{largest:.0e}" if largest else "0"

    numbers = [worst(what) for what in ("float64", "float32", "native", "cached", "theirs")]
    parameters = f"{max(one.parameters for one in found):,}"
    return f"| {' | '.join([name, str(len(found)), str(lines), parameters, *numbers])} |"


HEAD = """\
| family | variants | lines of YAML | parameters | import, float64 | float32 | export | generate | \
generate, the library's own |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
"""
START, END = "<!-- made by make families -->\n", "<!-- end -->"


def write_table(rows: list[str]) -> None:
    page = PAGE.read_text("utf-8")
    before, rest = page.split(START)
    _, after = rest.split(END)
    table = HEAD + "".join(f"{line}\n" for line in rows)
    PAGE.write_text(f"{before}{START}{table}{END}{after}", "utf-8")


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    failed, rows = 0, []
    for name, pairs in itertools.groupby(variants(names), key=lambda pair: pair[0]):
        found = [look(name, variant) for _, variant in pairs]
        rows.append(row(name, found))
        print(rows[-1], flush=True)
        for variant, one in enumerate(found):
            failed += bool(one.wrong)
            print(*(f"    {name} {variant}: {wrong}" for wrong in one.wrong), sep="\n", end="")
    if not names:
        write_table(rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
