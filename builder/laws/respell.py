"""The same model spelt otherwise: lists nested, names inlined, blocks renamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from builder.index import load_index

Choose: TypeAlias = Callable[[int, int], int]  # a whole number from low to high

NEW_NAMES = {"first": "one", "second": "two", "third": "three"}
NEW_LABELS = {"near": "far", "far": "near"}
JOINERS = set(load_index().words("joiner"))
BRANCHES = ("residual", "parallel", "repeat", "layers", "pattern", "block")


def respelled(page: Mapping[str, Any], choose: Choose) -> dict[str, Any]:
    """A page that means the same model; ``choose`` decides what is written otherwise."""
    blocks = page["blocks"]
    speller = _Speller(blocks, _shared_names(page), choose)
    renamed = {NEW_NAMES[name]: speller.node(node) for name, node in blocks.items()}
    model = [speller.node(node) for node in page["model"]]
    for place, node in enumerate(model):
        if choose(0, 1):  # a part of the model, layers and all, as a block
            renamed[f"part{place}"], model[place] = node, f"part{place}"
    return {**page, "blocks": renamed, "model": model}


@dataclass(frozen=True)
class _Speller:
    blocks: Mapping[str, Any]
    shared: set[str]
    choose: Choose

    def node(self, node: Any) -> Any:
        """A node spelt otherwise, here and inside."""
        node = self.inside(node)
        match self.choose(0, 7):
            case 0:
                return [node]
            case 1:
                return [node, "none"]
            case 2:
                return ["none", [[node]]]
        return node

    def inside(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.node(item) for item in node]
        if isinstance(node, str):
            return self.word(node)
        if "as" in node:
            bare = {key: value for key, value in node.items() if key != "as"}
            return {**self.inside(bare), "as": NEW_LABELS[node["as"]]}
        if "residual" in node:
            return {"residual": self.node(node["residual"])}
        if "parallel" in node:
            return {"parallel": [self.node(branch) for branch in node["parallel"]]}
        if "repeat" in node or "layers" in node:
            return self.rounds(node)
        if "like" in node:
            return {**node, "like": NEW_NAMES[node["like"]]}
        for joiner in JOINERS & set(node):
            return {**node, joiner: self.node(node[joiner])}
        return self.relabelled(node)

    def relabelled(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """A leaf that refers to labels by their new names."""
        new = {}
        for key, value in node.items():
            new[key] = self.relabelled(value) if isinstance(value, Mapping) else value
            if isinstance(value, str) and value in NEW_LABELS:
                new[key] = NEW_LABELS[value]
        return new

    def word(self, word: str) -> Any:
        if word == "none":
            return word
        if word not in self.blocks:
            return {word: {}} if self.choose(0, 1) else word
        if word in self.shared:
            return NEW_NAMES[word]
        match self.choose(0, 2):
            case 0:
                return NEW_NAMES[word]
            case 1:
                label = {"as": "unread"} if self.choose(0, 1) else {}
                return {"like": NEW_NAMES[word], **label}
        return self.node(self.blocks[word])

    def rounds(self, node: Mapping[str, Any]) -> Any:
        """A repeat, of one entry or of a pattern; its shared names follow their blocks."""
        node = dict(node)
        if isinstance(share := node.get("share"), str):
            node["share"] = NEW_NAMES[share]
        elif isinstance(share, list):
            node["share"] = [NEW_NAMES[name] for name in share]
        if "block" in node:
            block = self.node(node.pop("block"))
            return {**node, **({"pattern": [block]} if self.choose(0, 1) else {"block": block})}
        if "remainder" in node or self.choose(0, 1):
            node["pattern"] = [self.entry(entry) for entry in node["pattern"]]
            return node
        entries = [copied for entry in node["pattern"] for copied in self.copies(entry)]
        return {**node, "pattern": [self.node(entry) for entry in entries]}

    def entry(self, entry: Any) -> Any:
        if isinstance(entry, str) and "*" in entry:
            name, times = entry.split("*")
            return f"{NEW_NAMES.get(name, name)}*{times}"  # none may be repeated too
        return self.node(entry)

    def copies(self, entry: Any) -> list[Any]:
        if isinstance(entry, str) and "*" in entry:
            name, times = entry.split("*")
            return [name] * int(times)
        return [entry]


def _shared_names(node: Any) -> set[str]:
    """Every name that some ``share`` lists."""
    if isinstance(node, list):
        return {name for item in node for name in _shared_names(item)}
    if not isinstance(node, Mapping):
        return set()
    share = node.get("share")
    own = {share} if isinstance(share, str) else set(share) if isinstance(share, list) else set()
    return own | {name for item in node.values() for name in _shared_names(item)}
