"""Every field of every config, changed: ``python -m tests.config_fields [FAMILY...]``.

A changed config.json is read by the library's class, which makes a model of it, and by ours: logits
follow, or the field is refused.  Nothing is dropped in silence, and what a family ignores is inert.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import hf_bridge
from builder.errors import BuilderError
from hf_bridge.family_files import load_family
from tests.families import FLOAT64, gap, variants
from tests.family_configs import listed_values
from tests.hf_folders import make_tiny, read, tool, written

LARGE = 200  # a size that a class has by default, and no tiny model
MARKERS = {"model_type", "architectures", "transformers_version", "dtype"}


@dataclass(frozen=True)
class Change:
    """One field of a config, and what it is instead; ``absent`` leaves it out."""

    path: tuple[str, ...]
    value: Any
    absent: bool = False

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} = {'left out' if self.absent else repr(self.value)}"

    def of(self, config: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = json.loads(json.dumps(config))
        *above, last = self.path
        place = changed
        for word in above:
            place = place[word]
        if self.absent:
            del place[last]
        else:
            place[last] = self.value
        return changed


def changes(name: str, config: dict[str, Any]) -> Iterator[Change]:
    """Every field at values that its class may know, or may not."""
    listed = listed_values(load_family(name))
    defaults = json.loads(json.dumps(tool().CONFIG_MAPPING[name]().to_dict()))
    for path, value in fields(config):
        others = [*listed.get(".".join(path), ()), *others_than(value, path[-1])]
        for other in dict.fromkeys(map(json.dumps, others)):
            if other != json.dumps(value):
                yield Change(path, json.loads(other))
        default = defaults.get(path[0]) if len(path) == 1 else None
        if not (isinstance(default, int) and default > LARGE):
            yield Change(path, None, absent=True)


def fields(
    config: dict[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for word, value in config.items():
        if isinstance(value, dict):
            yield from fields(value, (*above, word))
        elif word not in MARKERS:
            yield (*above, word), value


def others_than(value: Any, word: str) -> list[Any]:
    match value:
        case bool():
            return [not value, None]
        case int():
            return [value + 1, 2 * value, None]
        case float():
            return [value * 1.25 if value else 0.5, None]
        case str():
            return ["relu", "gelu_new"] if "act" in word else ["no such word"]
        case list():
            return [value[::-1], value[:-1]]
    return [1, 0.5, True]


def outcome(name: str, config: dict[str, Any], ids: torch.Tensor, folder: Path) -> str:
    """What comes of a config: ``follows``, ``refused``, ``impossible`` where the class itself makes
    nothing of it, or how far ours is from the class.
    """
    written(folder, config)
    try:
        told = tool().CONFIG_MAPPING[name].from_pretrained(folder)
        native = tool().model_class(name)(told).float().eval()
        tool().perturb(native, 0)
        native.save_pretrained(folder)
        reference = tool().logits_in_float64(tool().load(folder, name), ids)
    except Exception:
        return "impossible"
    written(folder, config)
    try:
        model, _ = hf_bridge.from_hf(folder, family=name, dtype=torch.float64)
    except BuilderError:
        return "refused"
    with torch.no_grad():
        found = gap(model(ids), reference)
    return "follows" if found <= FLOAT64 else f"logits differ by {found:.1e}"


def look(name: str, variant: int, sample: int = 1, offset: int = 0) -> Iterator[tuple[Change, str]]:
    """Each change of a variant's config with what comes of it; of so many, one."""
    with tempfile.TemporaryDirectory() as scratch:
        source = make_tiny(name, variant, Path(scratch) / "source")
        config = read(source / "config.json")
        ids = load_file(source / "reference.safetensors")["input_ids"]
        for number, change in enumerate(changes(name, config)):
            if number % sample == offset % sample:
                folder = Path(scratch) / f"changed-{number}"
                yield change, outcome(name, change.of(config), ids, folder)


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    told: Counter[str] = Counter()
    wrong = 0
    for name, variant in variants(names):
        for change, found in look(name, variant):
            known = found in ("follows", "refused", "impossible")
            told[found if known else "wrong"] += 1
            wrong += not known
            if not known:
                print(f"{name} {variant}: {change}: {found}", flush=True)
    print(", ".join(f"{what} {count:,}" for what, count in sorted(told.items())))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
