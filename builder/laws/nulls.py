"""Parameters that no gradient reaches, each with its reason: an exact zero that is no fault."""

from __future__ import annotations

from collections.abc import Callable

from builder.graph import Filler, Graph, Leaf, leaves


def null_parameters(graph: Graph) -> dict[str, str]:
    """The beginnings of their names, with the reasons."""
    return {
        f"{leaf.weights}.{part}": reason
        for leaf in leaves(graph)
        for part, reason in NULLS.get(leaf.word, _none)(leaf).items()
    }


def _none(leaf: Leaf) -> dict[str, str]:
    return {}


def _attention(leaf: Leaf) -> dict[str, str]:
    mask, position = leaf["mask"], leaf["position"]
    assert isinstance(mask, Filler)
    if mask.word == "sliding_window" and mask["window"] == 1:
        return dict.fromkeys(("q", "k"), "one key has the weight 1, whatever its score")
    norm = leaf["qk_norm"]
    if leaf["head_dim"] == 1 and isinstance(norm, Filler) and norm.word == "layernorm":
        return dict.fromkeys(("q.", "k.", "q_norm.w", "k_norm"), "one number less its mean is 0")
    rotates = isinstance(position, Filler) and position.word == "rope"
    if not rotates and leaf["qk_norm"] is None and leaf["softcap"] is None:
        return {"k.bias": "it adds the same to every score of a query, which softmax ignores"}
    if not rotates and _shifts(leaf["qk_norm"]) and leaf["softcap"] is None:
        return {"k_norm.bias": "it adds the same to every score of a query, which softmax ignores"}
    return {}


def _shifts(norm: object) -> bool:
    return isinstance(norm, Filler) and dict(norm.options).get("bias") is True


def _moe(leaf: Leaf) -> dict[str, str]:
    router = leaf["router"]
    assert isinstance(router, Filler)
    if leaf["experts"] == 1:
        return {"router": "one expert has the weight 1, whatever its score"}
    if router["normalise"] and router["top_k"] == 1:
        return {"router": "one chosen expert has the weight 1, once normalised"}
    return {}


NULLS: dict[str, Callable[[Leaf], dict[str, str]]] = {"attention": _attention, "moe": _moe}
