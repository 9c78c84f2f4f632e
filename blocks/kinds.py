"""The kinds of registered blocks: what each reads and gives, and the namespace of its words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """``reads -> gives``, for a node; ``namespace`` is ``node``, or the kind's own name for a
    slot's fillers.

    An ``anchor`` gives its name to the leaves around it; what ``mixes`` moves information between
    positions.
    """

    namespace: str
    reads: str = ""
    gives: str = ""
    anchor: bool = False
    mixes: bool = False


NODES = {
    "embedding": Kind("node", "tokens", "stream"),
    "head": Kind("node", "stream", "logits"),
    "mixer": Kind("node", "stream", "stream", anchor=True, mixes=True),
    "ffn": Kind("node", "stream", "stream", anchor=True),
    "norm": Kind("node", "stream", "stream"),
    "positions": Kind("node", "stream", "stream"),
    "joiner": Kind("node", "stream", "stream"),  # a way round a branch: {lerp: node}
    "map": Kind("node", "any", "any"),  # T -> T: on a stream or on logits
}
SLOTS = {
    kind: Kind(kind)
    for kind in (
        "act",
        "data",
        "gate",
        "init",
        "mask",
        "optimizer",
        "position",
        "router",
        "scaling",
        "schedule",
        "section",
        "temperature",
        "tokenizer",
    )
}
TASKS = {"probe": Kind("data")}  # data that a task draws, in place of text
KINDS = NODES | SLOTS | TASKS
