"""Rewritings that change no logit: what is nothing, and what is something else in other words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from builder.construct import registered
from builder.graph import (
    Chain,
    Filler,
    Graph,
    Joined,
    Leaf,
    Node,
    Parallel,
    Residual,
    leaves,
    spliced,
)
from builder.laws.rewrite import Own, Pair, Rewriting, State, but, each, links, made, over, renamed

APART = {  # matrices beside which no bias stands
    "attention": (".gate.", ".q_norm.", ".k_norm."),
    "latent_attention": (".q.", ".q_up.", ".kv_up."),
}
HUGE = 2.0**40  # who divides moderate numbers by it loses no digit, and tanh of them changes none


# Nothing, put after what embeds, mixes, feeds forward or ends


def _then(make: Callable[[int, str], tuple[Node, Own]]) -> Rewriting:
    """``make`` gives what stands there, from the width and the beginning of its names; its weights
    by what follows this.
    """

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.kind not in ("embedding", "mixer", "ffn", "head"):
            return None
        node, new = make(leaf.out, f"{leaf.name}_then")
        added = {f"_then{suffix}": tensor for suffix, tensor in new.items()}
        return Chain(spliced((leaf, node))), own | added

    return lambda graph, state: each(graph, state, change)


def _leaf_then(**written: Any) -> Rewriting:
    return _then(lambda dim, name: (made(written, dim, f"{name}_{next(iter(written))}"), {}))


def _gain(dim: int, name: str) -> tuple[Node, Own]:
    return made({"gain": 1.0}, dim, f"{name}_gain"), {"_gain.weight": _ones(dim)}


def _matrix(dim: int, name: str) -> tuple[Node, Own]:
    return made({"linear": dim}, dim, f"{name}_linear"), {"_linear.weight": _eye(dim)}


def _streams(dim: int, name: str) -> tuple[Node, Own]:
    opened = made({"open_streams": 2}, dim, f"{name}_open")
    summed = made({"sum_streams": 2}, 2 * dim, f"{name}_sum")
    return Chain((opened, summed, made({"scale": 0.5}, dim, f"{name}_half"))), {}


def _empty_branch(dim: int, name: str) -> tuple[Node, Own]:
    norm = made({"rmsnorm": {"weight": False}}, dim, f"{name}_norm")
    return Residual(Chain((norm, made({"scale": 0.0}, dim, f"{name}_none")))), {}


# Ways round a branch


def lerp_of_rate_one(graph: Graph, state: State) -> Pair | None:
    """``f`` as ``x + 1 (f(x) - x)``."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.kind not in ("mixer", "ffn"):
            return None
        joiner = made({"lerp": "rmsnorm"}, leaf.dim, f"{leaf.name}_lerp")
        return Joined(joiner, leaf), own | {"_lerp.rate": _ones(leaf.dim)}

    return each(graph, state, change)


def _each_residual(
    graph: Graph, state: State, change: Callable[[Residual, int, str], tuple[Node, State]]
) -> Pair | None:
    """Every residual made something else, from the width that reaches it and a name."""
    new, number = dict(state), count()

    def visit(node: Node) -> Node:
        if not isinstance(node, Residual):
            return node
        first = next(leaves(node))
        other, added = change(node, first.dim, f"{first.name}_branch{next(number)}")
        new.update(added)
        return other

    graph = over(graph, visit)
    return (graph, new) if next(number) else None


def residual_as_parallel(graph: Graph, state: State) -> Pair | None:
    """``x + f(x)`` as ``1 x + f(x)``."""

    def change(node: Residual, dim: int, name: str) -> tuple[Node, State]:
        return Parallel((made({"scale": 1.0}, dim, name), node.body)), {}

    return _each_residual(graph, state, change)


def residual_as_hyper(graph: Graph, state: State) -> Pair | None:
    """``x + f(x)`` as a hyper-connection of one stream."""

    def change(node: Residual, dim: int, name: str) -> tuple[Node, State]:
        joiner = made({"hyper": "rmsnorm", "streams": 1, "dynamic": False}, dim, name)
        new = {"read": _ones(1), "mix": _eye(1), "write": _ones(1)}
        return Joined(joiner, node.body), {f"{name}.{part}": t for part, t in new.items()}

    return _each_residual(graph, state, change)


# Attention, and what mixes like it


def repeated_keys(graph: Graph, state: State) -> Pair | None:
    """Grouped keys and values, each repeated for every query head of its group."""
    if any(reader["heads"] != lender["heads"] for reader, lender in links(graph)):
        return None  # repeated as often for each, they would no longer be alike

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        sizes: dict[str, Any] = dict(leaf.options)
        if leaf.word == "gated_delta" and (times := sizes["value_heads"] // sizes["heads"]) > 1:
            return but(leaf, heads=sizes["value_heads"]), _delta_repeated(sizes, own, times)
        if leaf.word not in ("attention", "linear_attention") or sizes.get("decay"):
            return None  # each key head has a decay of its own
        if (times := sizes["heads"] // sizes["kv_heads"]) == 1:
            return None
        units = {suffix: width for suffix, width in _heads(leaf, own) if _of_keys(suffix)}
        return but(leaf, kv_heads=sizes["heads"]), {
            suffix: _repeated(t, times, units[suffix]) if suffix in units else t
            for suffix, t in own.items()
        }

    return each(graph, state, change)


def _heads(leaf: Leaf, own: Own) -> Iterator[tuple[str, int]]:
    """The tensors whose first dim goes through the heads, and how many entries each has there."""
    sizes: dict[str, Any] = dict(leaf.options)
    head_dim, values = sizes["head_dim"], sizes.get("value_dim", sizes["head_dim"])
    over = {"all": head_dim, "each": 1}.get(sizes.get("qk_norm_over", ""))
    widths = {".q.": head_dim, ".k.": head_dim, ".v.": values, ".sub_norm.": values, ".sinks": 1}
    widths |= {".q_norm.": over, ".k_norm.": over, ".gate.bias": 1}
    widths |= {".gate.weight": len(own.get(".gate.weight", ())) // sizes["heads"]}
    for suffix in own:
        width = next((width for start, width in widths.items() if suffix.startswith(start)), None)
        if width:
            yield suffix, width


def _of_keys(suffix: str) -> bool:
    return suffix.startswith((".k.", ".v.", ".k_norm."))


def _repeated(x: Tensor, times: int, head_dim: int) -> Tensor:
    return x.reshape(-1, head_dim, *x.shape[1:]).repeat_interleave(times, 0).flatten(0, 1)


def _delta_repeated(sizes: Mapping[str, Any], own: Own, times: int) -> Own:
    head_dim, wide = sizes["head_dim"], sizes["heads"] * sizes["head_dim"]
    new = {
        s: _repeated(t, times, head_dim) if s[:3] in (".q.", ".k.") else t for s, t in own.items()
    }
    if ".conv" in own:
        q, k, v = own[".conv"].tensor_split((wide, 2 * wide))
        new[".conv"] = torch.cat([_repeated(q, times, head_dim), _repeated(k, times, head_dim), v])
    return new


def turned_heads(graph: Graph, state: State) -> Pair | None:
    """All heads in the opposite order: queries, keys, values, and what follows them."""
    if any(_slopes(leaf) for link in links(graph) for leaf in link):
        return None  # its heads stand by their slopes, and so must those that are lent

    return each(graph, state, lambda leaf, own: _turned(leaf, own, whole=True))


def turned_queries(graph: Graph, state: State) -> Pair | None:
    """The query heads of each group in the opposite order; of a delta rule, the value heads."""
    return each(graph, state, lambda leaf, own: _turned(leaf, own, whole=False))


def _turned(leaf: Leaf, own: Own, whole: bool) -> tuple[Node, Own] | None:
    sizes: dict[str, Any] = dict(leaf.options)
    if leaf.word == "gated_delta":
        return _delta_turned(leaf, own, whole)
    if leaf.word not in ("attention", "linear_attention"):
        return None
    group = sizes["heads"] if whole else sizes["heads"] // sizes["kv_heads"]
    if group == 1 or _slopes(leaf) or (whole and sizes.get("decay")):
        return None
    new = dict(own)
    for suffix, width in _heads(leaf, own):
        if whole or not _of_keys(suffix):
            turning = sizes["kv_heads"] if _of_keys(suffix) else group
            new[suffix] = _flipped(own[suffix], 0, turning, width)
    values = sizes.get("value_dim", sizes["head_dim"])
    new[".o.weight"] = _flipped(own[".o.weight"], 1, group, values)
    return leaf, new


def _delta_turned(leaf: Leaf, own: Own, whole: bool) -> tuple[Node, Own] | None:
    sizes: dict[str, Any] = dict(leaf.options)
    heads, values = sizes["heads"], sizes["value_heads"]
    group = values if whole else values // heads
    if group == 1:
        return None
    keys = heads if whole else 1
    units = {".q.weight": (keys, sizes["head_dim"]), ".k.weight": (keys, sizes["head_dim"])}
    units |= dict.fromkeys((".v.weight", ".gate.weight"), (group, sizes["value_dim"]))
    single = (".decay.weight", ".beta.weight", ".A_log", ".dt_bias")
    units |= dict.fromkeys(single, (group, 1))
    new = own | {suffix: _flipped(own[suffix], 0, *unit) for suffix, unit in units.items()}
    new[".o.weight"] = _flipped(own[".o.weight"], 1, group, sizes["value_dim"])
    if ".conv" in own:
        wide = heads * sizes["head_dim"]
        parts = zip(own[".conv"].tensor_split((wide, 2 * wide)), (".q", ".k", ".v"), strict=True)
        new[".conv"] = torch.cat([_flipped(x, 0, *units[f"{n}.weight"]) for x, n in parts])
    return leaf, new


def _flipped(x: Tensor, axis: int, group: int, width: int) -> Tensor:
    """The heads of each group, ``width`` entries each, in the opposite order."""
    split = x.reshape(*x.shape[:axis], -1, group, width, *x.shape[axis + 1 :])
    return split.flip(axis + 1).reshape(x.shape)


def _position(leaf: Leaf) -> str:
    filler = dict(leaf.options).get("position")
    return filler.word if isinstance(filler, Filler) else ""


def _slopes(leaf: Leaf) -> bool:
    """Whether each head has a slope of its own, by its place."""
    return _position(leaf).startswith("alibi")


def other_pairs(graph: Graph, state: State) -> Pair | None:
    """Rotary pairs in the other layout, the components of queries and keys put in its order."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        sizes: dict[str, Any] = dict(leaf.options)
        if _position(leaf) != "rope":
            return None
        if leaf.word != "attention":
            return None
        position, head_dim = sizes["position"], sizes["head_dim"]
        half, rotated = position["pairs"] == "half", int(head_dim * position["fraction"])
        pairs = torch.arange(rotated).view((2, -1) if half else (-1, 2)).T.flatten()
        order = torch.cat([pairs, torch.arange(rotated, head_dim)])
        new = dict(own)
        for suffix, tensor in own.items():
            if suffix.startswith((".q.", ".k.")):
                heads = tensor.reshape(-1, head_dim, *tensor.shape[1:])
                new[suffix] = heads[:, order].flatten(0, 1)
            elif suffix.startswith((".q_norm.", ".k_norm.")):  # of one head, each, or all on end
                new[suffix] = tensor.reshape(-1, head_dim)[:, order].view(tensor.shape)
        other = but(position, pairs="interleaved" if half else "half")
        return but(leaf, position=other), new

    return each(graph, state, change)


def _attention_with(
    option: str, new: Callable[[Graph, Any], Any], among: Callable[[Any], bool]
) -> Rewriting:
    """Attentions whose option is ``among`` those that may be, with a ``new`` one instead."""

    def rewriting(graph: Graph, state: State) -> Pair | None:
        def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
            if leaf.word != "attention" or not among(leaf[option]):
                return None
            return but(leaf, **{option: new(graph, leaf[option])}), own

        return each(graph, state, change)

    return rewriting


def _covering(word: str) -> Rewriting:
    """A causal mask as one of another word that reaches over the whole context."""

    def mask(graph: Graph, causal: Filler) -> Any:
        written = {"attention": {"heads": 1, "mask": {word: graph.context}}}
        return made(written, 1, "")["mask"]

    return _attention_with("mask", mask, lambda mask: mask.word == "causal")


def one_place_more(graph: Graph, state: State) -> Pair | None:
    """A short convolution with a weight of 0 for the place before those that it reads."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        suffix = {"short_conv": ".weight", "gated_delta": ".conv"}.get(leaf.word)
        kernel: Any = dict(leaf.options).get("kernel")
        if suffix is None:
            return None
        if kernel is None:  # none of its own: the weight of the newest place is 1
            channels = sum(len(own[f".{part}.weight"]) for part in "qkv")
            return but(leaf, kernel=1), own | {suffix: _ones(channels, 1)}
        padded = torch.nn.functional.pad(own[suffix], (1, 0))
        return but(leaf, kernel=kernel + 1), own | {suffix: padded}

    return each(graph, state, change)


# Feed-forwards and experts


def one_expert(graph: Graph, state: State) -> Pair | None:
    """A feed-forward as the one expert of a mixture."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.kind != "ffn" or _asks(leaf):
            return None
        router = {"softmax": {"top_k": 1}}
        written = {"moe": {"experts": 1, "expert": "rmsnorm", "router": router}}
        inside = renamed(leaf, leaf.name, f"{leaf.name}.{leaf.word}")
        stacked = {f".experts{suffix}": tensor[None] for suffix, tensor in own.items()}
        score = {".router.score.weight": torch.zeros(1, leaf.dim, dtype=torch.float64)}
        return but(made(written, leaf.dim, leaf.name), expert=inside), stacked | score

    return each(graph, state, change)


def _asks(leaf: Leaf) -> bool:
    """Whether it asks for more than its token, as no expert may."""
    forward = registered(leaf.kind, leaf.word).forward  # type: ignore[attr-defined]
    return len(inspect.signature(forward).parameters) > 2  # itself and the stream


def turned_experts(graph: Graph, state: State) -> Pair | None:
    """The experts in the opposite order, and the router's rows with them."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.word != "moe" or leaf["experts"] == 1:
            return None
        return leaf, {suffix: tensor.flip(0) for suffix, tensor in own.items()}

    return each(graph, state, change)


def gate_of_activations(graph: Graph, state: State) -> Pair | None:
    """``down(act(up(x)))`` as ``down(act(gate(x)) * 1)``."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.word != "mlp":
            return None
        other = made({"glu": {"ff": leaf["ff"], "bias": True}}, leaf.dim, leaf.name)
        up, down = own[".up.weight"], own[".down.weight"]
        new = {".gate.weight": up, ".up.weight": torch.zeros_like(up), ".down.weight": down}
        new |= {".gate.bias": own.get(".up.bias", torch.zeros_like(up[:, 0]))}
        new |= {".down.bias": own.get(".down.bias", torch.zeros_like(down[:, 0]))}
        new |= {s: t for s, t in own.items() if s.startswith((".act.", ".sub_norm."))}
        other = but(other, act=leaf["act"], sub_norm=leaf["sub_norm"])
        return other, new | {".up.bias": torch.ones_like(up[:, 0])}

    return each(graph, state, change)


def biases_of_zero(graph: Graph, state: State) -> Pair | None:
    """A bias of zeros wherever a matrix may have one, and has none."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        without = [k for k in ("bias", "out_bias") if dict(leaf.options).get(k) is False]
        if not without or leaf.kind == "norm":
            return None
        apart = APART.get(leaf.word, ())
        new = {
            s.replace("weight", "bias"): torch.zeros_like(t[:, 0])
            for s, t in own.items()
            if t.dim() == 2 and not s.startswith(apart)
        }
        return but(leaf, **dict.fromkeys(without, True)), new | own

    return each(graph, state, change)


# Norms, gains and tables


def norm_and_gain(graph: Graph, state: State) -> Pair | None:
    """A root mean square norm's weight as a gain behind it."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.word != "rmsnorm" or not leaf["weight"]:
            return None
        plain = replace(but(leaf, weight=False, unit_offset=False), name=f"{leaf.name}_plain")
        plain = replace(plain, weights=plain.name)
        weight = own[".weight"] + bool(leaf["unit_offset"])
        return Chain((plain, made({"gain": 1.0}, leaf.dim, leaf.name))), {".weight": weight}

    return each(graph, state, change)


def centred_rmsnorm(graph: Graph, state: State) -> Pair | None:
    """A layer norm as the root mean square norm of what has lost its mean, by two matrices."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.word != "layernorm":
            return None
        dim, name = leaf.dim, leaf.name
        centre = made({"linear": dim}, dim, f"{name}_centre")
        norm = made({"rmsnorm": {"eps": leaf["eps"], "weight": False}}, dim, f"{name}_plain")
        last = made({"linear": {"out": dim, "bias": True}}, dim, name)
        weight = own.get(".weight", _ones(dim)) + bool(leaf["unit_offset"])
        return Chain((centre, norm, last)), {
            "_centre.weight": _eye(dim) - 1 / dim,
            ".weight": weight.diag(),
            ".bias": own.get(".bias", 0 * _ones(dim)),
        }

    return each(graph, state, change)


def scale_as_gain(graph: Graph, state: State) -> Pair | None:
    """A number as a gain of as much for each channel."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.word != "scale":
            return None
        factor: Any = leaf["factor"]
        return made({"gain": 1.0}, leaf.dim, leaf.name), {".weight": factor * _ones(leaf.dim)}

    return each(graph, state, change)


def gain_as_diagonal(graph: Graph, state: State) -> Pair | None:
    """A gain as a matrix with it along its diagonal."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.word != "gain":
            return None
        return made({"linear": leaf.dim}, leaf.dim, leaf.name), {".weight": own[".weight"].diag()}

    return each(graph, state, change)


def add_as_mix(graph: Graph, state: State) -> Pair | None:
    """A sum as one that weighs both by 1."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.word != "add":
            return None
        other = replace(leaf, word="mix", options=(("sources", (leaf["source"],)),))
        return other, {".own": _ones(1), ".weight": _ones(1)}

    return each(graph, state, change)


def table_of_waves(graph: Graph, state: State) -> Pair | None:
    """Sines and cosines of positions as a learned table that holds them."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        if leaf.word != "sinusoidal_positions":
            return None
        theta: Any = leaf["theta"]
        offset: Any = leaf["offset"]
        pairs = leaf.dim // 2
        channel, place = torch.arange(leaf.dim), torch.arange(graph.context)[:, None] + offset
        halves = leaf["layout"] == "halves"
        pair = channel % pairs if halves else channel // 2
        angles = place / theta ** (pair.double() / (pairs - bool(leaf["reaches_theta"])))
        sine = channel < pairs if halves else channel % 2 == 0
        table = torch.where(sine, angles.sin(), angles.cos())
        written = {"learned_positions": {"context": graph.context}}
        return made(written, leaf.dim, leaf.name), {".weight": table}

    return each(graph, state, change)


def untied_head(graph: Graph, state: State) -> Pair | None:
    """A tied head as one with a copy of the embedding's weight."""

    def change(leaf: Leaf, own: Own) -> tuple[Node, Own] | None:
        return (but(leaf, tie=False), own) if dict(leaf.options).get("tie") else None

    return each(graph, state, change)


def _ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float64)


def _eye(dim: int) -> Tensor:
    return torch.eye(dim, dtype=torch.float64)


# The table

IDENTITIES: dict[str, Rewriting] = {  # by what they claim
    "a scale of one is nothing": _leaf_then(scale=1.0),
    "a gain of ones is nothing": _then(_gain),
    "the identity matrix is nothing": _then(_matrix),
    "a huge soft cap is nothing": _leaf_then(softcap=HUGE),
    "dropout is nothing in an evaluated model": _leaf_then(dropout=0.5),
    "half the sum of two streams is the stream": _then(_streams),
    "a branch scaled by zero is nothing": _then(_empty_branch),
    "a lerp of rate 1 is its branch": lerp_of_rate_one,
    "a residual is a parallel with nothing": residual_as_parallel,
    "a static hyper-connection of one stream is a residual": residual_as_hyper,
    "grouped keys are repeated keys": repeated_keys,
    "heads may come in any order": turned_heads,
    "the query heads of a group may come in any order": turned_queries,
    "rotary layouts are orders of the components": other_pairs,
    "a window of the whole context is causal": _covering("sliding_window"),
    "one chunk of the whole context is causal": _covering("chunked"),
    "a huge soft cap of the scores is none": _attention_with(
        "softcap", lambda graph, cap: HUGE, lambda cap: cap is None
    ),
    "dropout of attention is nothing in an evaluated model": _attention_with(
        "dropout", lambda graph, p: 0.5, lambda p: p == 0
    ),
    "a convolution may read one place more by the weight 0": one_place_more,
    "one expert is a feed-forward": one_expert,
    "experts may come in any order": turned_experts,
    "a feed-forward is gated by ones": gate_of_activations,
    "a bias of zeros is none": biases_of_zero,
    "a norm's weight is a gain": norm_and_gain,
    "a layer norm is the root mean square norm of what is centred": centred_rmsnorm,
    "a scale is a gain": scale_as_gain,
    "a gain is a diagonal matrix": gain_as_diagonal,
    "a sum is a mix by ones": add_as_mix,
    "sinusoidal positions are a table": table_of_waves,
    "a tied head is a copy": untied_head,
}
