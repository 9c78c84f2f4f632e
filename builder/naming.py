"""Parameter names: words in order of execution, never YAML nesting
(``layers.3.rmsnorm_before_attention``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from blocks.kinds import NODES
from builder.expand import (
    Written,
    WrittenJoined,
    WrittenLayer,
    WrittenLeaf,
    WrittenParallel,
    WrittenResidual,
)


@dataclass(eq=False)
class Site:
    """A place of execution: a leaf to be named, the lists inside a branch, or a joiner's both."""

    word: str = ""
    kind: str = ""
    name: str = ""
    lists: list[list[Site]] = field(default_factory=list)


Names: TypeAlias = list[str]


def name_model(items: tuple[Written, ...]) -> Names:
    """The name of every leaf of a model, in order of execution."""
    sites, layers = [], []
    for item in items:
        if isinstance(item, WrittenLayer):
            sites.append(Site("layers", "layers", "layers"))
            layers.append(name_body(item.items))
        else:
            sites += _sites((item,))
    _count(sites)
    _name_others([sites], "", Counter({"layers": 1}))
    names, depth = [], 0
    for site in sites:
        if site.kind == "layers":
            names += [f"layers.{depth}.{name}" for name in layers[depth]]
            depth += 1
        else:
            names += [leaf.name for leaf in _leaves([site])]
    return names


def name_body(items: tuple[Written, ...]) -> Names:
    """The names within one layer, or within an expert."""
    sites = _sites(items)
    taken = _count(sites)
    _name_others([sites], "", taken)
    return [site.name for site in _leaves(sites)]


def _sites(items: tuple[Written, ...]) -> list[Site]:
    sites = []
    for item in items:
        match item:
            case WrittenLeaf():
                sites.append(Site(item.entry.word, item.entry.kind))
            case WrittenResidual():
                sites.append(Site(lists=[_sites(item.body)]))
            case WrittenJoined():
                entry = item.joiner.entry
                sites.append(Site(entry.word, entry.kind, lists=[_sites(item.body)]))
            case WrittenParallel():
                sites.append(
                    Site(lists=[[Site(lists=[_sites(branch)]) for branch in item.branches]])
                )
    return sites


def _leaves(sites: list[Site]) -> list[Site]:
    return [leaf for site in sites for leaf in _within(site)]


def _within(site: Site) -> list[Site]:
    inside = [leaf for sites in site.lists for leaf in _leaves(sites)]
    return [site, *inside] if site.word else inside


def _is_anchor(site: Site) -> bool:
    return site.kind == "layers" or NODES[site.kind].anchor


def _count(sites: list[Site]) -> Counter[str]:
    """Name the anchors, and the leaves that bear their own word, by counting."""
    taken: Counter[str] = Counter()
    for leaf in _leaves(sites):
        if leaf.kind != "layers" and (
            _is_anchor(leaf) or leaf.kind in ("embedding", "head", "positions")
        ):
            leaf.name = _numbered(leaf.word, taken)
    return taken


def _numbered(word: str, taken: Counter[str], suffix: str = "") -> str:
    """The number goes to the word: ``linear_2_after_mlp`` is not the first after ``mlp_2``."""
    taken[word + suffix] += 1
    count = taken[word + suffix]
    return word + (f"_{count}" if count > 1 else "") + suffix


def _name_others(lists: list[list[Site]], around: str, taken: Counter[str]) -> None:
    """Name the rest by the nearest anchor before them in their list, else after, else as it is."""
    for sites in lists:
        for place, site in enumerate(sites):
            suffix = _nearest(sites, place) or around
            if site.word and not site.name:
                site.name = _numbered(site.word, taken, _within_reach(site) or suffix)
            _name_others(site.lists, suffix, taken)


def _within_reach(joiner: Site) -> str:
    """A joiner is named by the first anchor of its branch."""
    anchors = (leaf for leaf in _leaves([joiner]) if _is_anchor(leaf))
    return next((f"_around_{anchor.name}" for anchor in anchors), "")


def _nearest(sites: list[Site], place: int) -> str:
    for site in reversed(sites[:place]):
        if anchors := [leaf for leaf in _leaves([site]) if _is_anchor(leaf)]:
            return f"_after_{anchors[-1].name}"
    for site in sites[place + 1 :]:
        if anchors := [leaf for leaf in _leaves([site]) if _is_anchor(leaf)]:
            return f"_before_{anchors[0].name}"
    return ""
