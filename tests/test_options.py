"""No option is dead, of our blocks or of a plug-in; and no key of the language is swallowed."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builder import load_recipe
from builder.errors import RecipeError
from builder.expand import STRUCTURE
from builder.index import load_index
from builder.laws import options
from builder.laws.authors import registered_meanwhile
from builder.laws.case import Case
from builder.laws.option_pages import Pages, model_entries, writable
from builder.laws.options import dead_options, no_option_is_dead, verdict, words_of
from builder.laws.strategies import pages, recipes
from builder.resolve import PAGE

INDEX = load_index()
OPTIONS = {
    f"{entry.word}.{parameter.name}": (entry, parameter)
    for entry in model_entries(INDEX)
    for parameter in writable(entry)
}


DIMS = {"dim": 8, "heads": 2, "ff": 6, "experts": 3, "vocab": 11, "context": 24}


def page_of(*body, blocks=None, **sections):
    model = ["token_embedding", *body, "lm_head"]
    return {"recipe": 1, "dims": DIMS, "blocks": blocks or {}, "model": model, **sections}


def loaded(page, plugins=()):
    """The recipe of a page, or None where it is refused."""
    try:
        return load_recipe(page, (), plugins)
    except RecipeError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_alters_something(option):
    entry, parameter = OPTIONS[option]
    found = verdict(entry, parameter.name, INDEX)
    assert found.alters, str(found)


@pytest.mark.parametrize(
    ("option", "alters"),
    [
        ("attention.softcap", "the logits"),
        ("attention.kv_from", "the logits"),
        ("attention.dropout", "the loss"),
        ("moe.balance", "the loss"),
        ("hyper.first", "the initial weights"),
        ("gain.initial", "the initial weights"),
        ("learned_positions.context", "how much can be read"),
    ],
)
def test_it_is_told_what_an_option_alters(option, alters):
    entry, parameter = OPTIONS[option]
    found = verdict(entry, parameter.name, INDEX)
    assert str(found) == f"{parameter.name} of {entry.word}: alters {alters}"


@settings(max_examples=10)
@given(recipe=recipes())
def test_no_recipe_holds_a_dead_option(recipe):
    assert no_option_is_dead(Case(recipe)) == 0.0


def test_the_words_of_a_recipe_are_those_of_slots_and_experts_too():
    expert = {"moe": {"expert": {"mlp": {"act": "relu2"}}, "router": {"softmax": {"top_k": 1}}}}
    mixer = {"attention": {"position": "rope", "qk_norm": "layernorm"}}
    recipe = load_recipe(page_of(mixer, expert))
    words = {word.word for word in words_of(recipe.graph)}
    assert words >= {"attention", "rope", "causal", "layernorm", "moe", "softmax", "mlp", "relu2"}


@pytest.mark.slow
def test_every_word_is_found_a_place():
    """None is passed over because no page could hold it."""
    for entry in model_entries(INDEX):
        assert Pages(entry, INDEX, {"dim": 8, "heads": 2}).bases, entry.word


# Plug-ins: a dead option is named, a living one is not

START = """
import torch
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.call import Call
from blocks.parameter import constant, drawn
from blocks.registry import Act, Node, Position, Reference, maker, register
"""
BLOCK = '''

@register("{word}", kind="{kind}")
class {name}(nn.Module):
    """A block."""

    checks = {checks}

    def __init__(self, {signature}) -> None:
        super().__init__()
        {init}

    def {method}(self, x: Tensor{asked}) -> Tensor:
        return {formula}
'''


def block(word, signature, init="", formula="2 * x", kind="ffn", asked="", checks=None, method=""):
    parts = {"signature": signature, "init": init or "pass", "formula": formula, "asked": asked}
    named = {"word": word, "kind": kind, "name": word.title().replace("_", "")}
    return BLOCK.format(**parts, **named, checks=checks or {}, method=method or "forward")


SPARE = "self.weight, self.spare = drawn(dim, dim), drawn(spare, dim)"
NAMED = "self.register_parameter(called, drawn(dim, dim)); self.called = called"
LINEAR = "F.linear(x, self.weight)"
RAW = "*, kept: float = 1.0, other: bool = True"
DEAD = {  # the option that is dead, and the block
    "an ignored number": ("temper", block("idle_float", "*, temper: float = 1.0")),
    "a number that is read and dropped": (
        "temper",
        block("idle_drop", "*, temper: float = 1.0", "self.temper = 2 * temper"),
    ),
    "a size of a parameter that nothing uses": (
        "spare",
        block("idle_size", "dim: int, spare: int = 3", SPARE, LINEAR),
    ),
    "a size of which the same corner is used whatever it is": (
        "spare",
        block(
            "idle_corner",
            "dim: int, spare: int = 3",
            "self.weight = drawn(spare, dim)",
            "x * self.weight[0]",
        ),
    ),
    "a name for a parameter": (
        "called",
        block(
            "idle_name",
            'dim: int, *, called: Literal["one", "two"] = "one"',
            NAMED,
            "F.linear(x, getattr(self, self.called))",
        ),
    ),
    "a flag": ("residual", block("idle_flag", "*, residual: bool = False")),
    "a slot": ("act", block("idle_slot", '*, act: Act = maker("silu")', "self.act = act()")),
    "a slot that may be empty": ("act", block("idle_none", "*, act: Act | None = None")),
    "an expert": (
        "expert",
        block("idle_node", 'dim: int, *, expert: Node = maker("glu")', "self.e = expert(dim)"),
    ),
    "a reference": (
        "source",
        block("idle_reference", "*, source: Reference | None = None", kind="map"),
    ),
    "a reference that is asked for": (
        "source",
        block("idle_read", "source: Reference, /", asked=", source: Tensor", kind="map"),
    ),
    "a word": ("mode", block("idle_word", 'dim: int, *, mode: str = "fast"')),
    "a list": ("sizes", block("idle_list", "*, sizes: tuple[int, ...] = (1, 2)")),
    "an order of summing": (
        "backwards",
        block(
            "idle_order",
            "*, backwards: bool = False",
            "self.step = -1 if backwards else 1",
            "x + x.flip(-1).flip(-1)[..., :1] if self.step > 0 else x[..., :1] + x",
        ),
    ),
    "an option of a joiner": (
        "rate",
        block(
            "idle_joiner", "*, rate: float = 1.0", "", "x + 2 * body(x)", "joiner", ", body: object"
        ),
    ),
    "an option of a filler": (
        "slope",
        block("idle_position", "*, slope: float = 1.0", "self.bias = None", "x", "position",
              ", call: Call", method="rotate"),
    ),
    "an option of an act": (
        "beta",
        block("idle_act", "*, beta: float = 1.0", "", "x.sigmoid()", kind="act"),
    ),
    "an option among living ones": (
        "other",
        block("idle_beside", RAW, "self.kept = kept", "self.kept * x"),
    ),
}  # fmt: skip
ONE = {  # what no legal change can be found of
    "a choice of one": ("mode", block("one_choice", 'dim: int, *, mode: Literal["a"] = "a"')),
    "a number that must be one": (
        "much",
        block(
            "one_number", "*, much: float = 1.0", "", "x", checks={"much == 1": "much={much}"}
        ),
    ),
    "a number that only its default can be built with": (
        "much",
        block("one_built", "*, much: float = 1.0", "assert much == 1, much"),
    ),
}  # fmt: skip
ALIVE = {
    "a number far from any other": block(
        "far_number",
        "*, much: int = 5000",
        "self.much = much",
        "x * self.much",
        checks={"much >= 5000": "{much}", "much % 7 != 0": "{much}"},
    ),
    "an option of another that is off": block(
        "beside_one",
        "*, much: float = 2.0, on: bool = False",
        "self.much = much if on else 1.0",
        "x * self.much",
    ),
    "an option of two others that are off": block(
        "beside_two",
        "*, much: float = 2.0, on: bool = False, too: bool = False",
        "self.much = (much if on else 1.0) if too else 1.5",
        "x * self.much",
    ),
    "noise in training": block(
        "noise",
        "*, width: float = 0.1",
        "self.width = width",
        "x + self.width * torch.randn_like(x) if self.training else x",
    ),
    "a gradient": block(
        "held_back", "*, much: float = 0.5", "self.much = much",
        "self.much * x + (1 - self.much) * x.detach()",
    ),
    "a first value": block(
        "start", "dim: int, *, first: float = 0.5", "self.w = constant(first, dim)", "x * self.w"
    ),
    "what becomes of packed documents": block(
        "by_document",
        "*, on: bool = True",
        "self.on = on",
        "x if call.segments is None or not self.on else x * call.segments[..., None]",
        asked=", call: Call",
    ),
    "a size that widens": block(
        "narrow",
        "dim: int, inner: int = 3",
        "self.down, self.up = drawn(inner, dim), drawn(dim, inner)",
        "F.linear(F.linear(x, self.down), self.up)",
    ),
    "a width that only some dims allow": block(
        "broad",
        "dim: int, *, much: float = 2.0",
        "self.much = much",
        "x * self.much",
        checks={"dim % 64 == 0": "{dim}"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A file with all blocks above, and its index; what it registers is forgotten again."""
    sources = [source for _, source in (DEAD | ONE).values()] + list(ALIVE.values())
    path = tmp_path_factory.mktemp("plugin") / "blocks_with_dead_options.py"
    path.write_text('"""Blocks."""\n' + START + "".join(sources))
    with registered_meanwhile([path]):
        yield path, load_index((path,))


def entry_of(source, index):
    (word,) = re.findall(r'register\("(\w+)"', source)
    return index.named(word)[0]


@pytest.mark.slow
@pytest.mark.parametrize("case", DEAD)
def test_a_dead_option_of_a_plug_in_is_named(case, plugin, monkeypatch):
    monkeypatch.setattr(options, "PAGES", 100)  # what is dead is dead on each
    monkeypatch.setattr(options, "FEWER", 10)
    name, source = DEAD[case]
    entry = entry_of(source, plugin[1])
    (line,) = dead_options(entry, plugin[1])
    assert line.startswith(f"{name} of {entry.word}: no legal change alters the logits, the loss")


@pytest.mark.parametrize("case", ONE)
def test_an_option_of_one_value_is_named(case, plugin):
    name, source = ONE[case]
    (line,) = dead_options(entry_of(source, plugin[1]), plugin[1])
    assert line.startswith(f"{name} of ") and "no second legal value was found" in line


@pytest.mark.parametrize("case", ALIVE)
def test_a_plug_in_whose_options_live_is_passed(case, plugin):
    assert dead_options(entry_of(ALIVE[case], plugin[1]), plugin[1]) == []


def test_a_recipe_with_a_dead_option_breaks_the_law(plugin):
    message = "^residual of idle_flag: no legal change alters the logits, the loss"
    with pytest.raises(AssertionError, match=message):
        no_option_is_dead(Case(loaded(page_of("narrow", {"residual": "idle_flag"}), [plugin[0]])))
    assert no_option_is_dead(Case(loaded(page_of("narrow"), [plugin[0]]))) == 0.0


# The resolver: what is written is in the graph, or refused


@pytest.mark.slow
@settings(max_examples=25)
@given(page=pages(), data=st.data())
def test_two_values_of_an_option_are_two_graphs(page, data):
    path, entry = data.draw(st.sampled_from(list(spots(page["model"], ("model",), page["blocks"]))))
    free = [p for p in writable(entry) if not p.type.refers]
    assume(free and is_used(page, path))
    parameter = data.draw(st.sampled_from(free))
    values = data.draw(st.permutations(plain_values(entry, parameter)))
    pages_of = (changed(page, path, with_option(entry, parameter.name, v)) for v in values[:6])
    made = [recipe for page in pages_of if (recipe := loaded(page))]
    assume(len(made) > 1)
    assert len({recipe.graph for recipe in made}) == len(made)
    assert len({recipe.hash for recipe in made}) == len(made)


def spots(node, path, blocks):
    """Where on a page a leaf or a joiner stands, in the model and in the blocks that it names."""
    if isinstance(node, list):
        for place, item in enumerate(node):
            yield from spots(item, (*path, place), blocks)
    elif isinstance(node, str):
        name = node.partition("*")[0]
        if name in blocks:
            yield from spots(blocks[name], ("blocks", name), blocks)
        elif node in INDEX.words("node"):
            yield path, INDEX.node(node)
    else:
        for word in {"residual", "parallel", "block", "pattern", *INDEX.words("joiner")} & {*node}:
            yield from spots(node[word], (*path, word), blocks)
        for word in set(INDEX.words("node")) & set(node):
            yield path, INDEX.node(word)


def is_used(page, path):
    """Whether a node makes any difference to the graph: a truncated pattern may not reach it."""
    without = loaded(changed(page, path, lambda node: "none"))
    return without is None or without.graph != load_recipe(page).graph


def plain_values(entry, parameter):
    """Values no two of which mean the same."""
    index_pages = Pages(entry, INDEX, {})
    values = index_pages.values(parameter)
    if parameter.type.base == "slot":
        first = {next(iter(v)) if isinstance(v, dict) else v: v for v in reversed(values)}
        return list(first.values())
    return values


def with_option(entry, name, value):
    """What writes one option of a word, and leaves the others."""

    def write(node):
        node = {node: {}} if isinstance(node, str) else node
        if entry.joins:
            return {**node, name: value}
        under = node[entry.word]
        given = under if isinstance(under, dict) else {entry.value[0].name: under}
        return {**node, entry.word: {**given, name: value}}

    return write


def changed(page, path, change):
    """A page with one node changed."""
    if not path:
        return change(page)
    first, *rest = path
    inside = changed(page[first], rest, change)
    if isinstance(page, list):
        return [*page[:first], inside, *page[first + 1 :]]
    return {**page, first: inside}


BLOCKS = {"a": "attention", "b": {"residual": "glu"}}
ROUNDS = {"repeat": 2, "pattern": ["a", "b"]}
KEYS = {  # two bodies that differ by a key of the language, and one where it says nothing
    "residual": ("glu", {"residual": "glu"}, {"residual": []}),
    "parallel": ("glu", {"parallel": ["glu", "glu"]}, {"parallel": "glu"}),
    "repeat": (ROUNDS, ROUNDS | {"repeat": 3}, ROUNDS | {"repeat": "a"}),
    "block": (
        {"repeat": 2, "block": "a"},
        {"repeat": 2, "block": "b"},
        {"repeat": 2, "block": "a", "pattern": ["b"]},
    ),
    "pattern": (ROUNDS, ROUNDS | {"pattern": ["b", "a"]}, ROUNDS | {"pattern": "a"}),
    "share": (ROUNDS, ROUNDS | {"share": "a"}, ROUNDS | {"share": "c"}),
    "layers": (
        {"layers": 2, "pattern": ["a", "b"]},
        {"layers": 4, "pattern": ["a", "b"]},
        {"layers": 3, "pattern": ["a", "b"]},
    ),
    "remainder": (
        {"layers": 2, "pattern": ["a", "b"]},
        {"layers": 3, "pattern": ["a", "b"], "remainder": "truncate"},
        {"layers": 2, "pattern": ["a", "b"], "remainder": "repeat"},
    ),
    "like": ({"like": "a"}, {"like": "b"}, {"like": "c"}),
    "set": (
        {"like": "a"},
        {"like": "a", "set": {"attention.bias": True}},
        {"like": "a", "set": {"attention.biased": True}},
    ),
    "as": (
        [{"glu": {}, "as": "s"}, {"glu": {}, "as": "t"}, {"add": "s"}],
        [{"glu": {}, "as": "t"}, {"glu": {}, "as": "s"}, {"add": "s"}],
        [{"glu": {}, "as": "t"}, {"add": "s"}],
    ),
}


@pytest.mark.parametrize("key", sorted({*STRUCTURE, *sum(STRUCTURE.values(), ()), "as"}))
def test_every_key_of_a_node_changes_the_graph_or_is_refused(key):
    before, after, idle = KEYS[key]
    one, other = (load_recipe(page_of(body, blocks=BLOCKS)) for body in (before, after))
    assert one.graph != other.graph and one.hash != other.hash
    assert loaded(page_of(idle, blocks=BLOCKS)) is None


SECTIONS = {  # a value of each part of a page that means another than what stands there
    "recipe": 2,
    "name": "other",
    "dims": DIMS | {"ff": 7},
    "blocks": {"a": "attention", "b": "glu"},
    "model": ["token_embedding", "a", "b", "b", "lm_head"],
    "tokenizer": "bytes",
    "data": {"text": "other.txt"},
    "train": {"steps": 7},
}


@pytest.mark.parametrize("part", PAGE)
def test_every_part_of_a_page_means_something(part):
    page = page_of("a", "b", blocks=BLOCKS, tokenizer="bpe", data="python_docs", name="one")
    one, other = load_recipe(page), loaded(page | {part: SECTIONS[part]})
    assert other is None if part == "recipe" else other.meaning != one.meaning


def test_a_name_changes_nothing_but_the_name():
    one, other = (load_recipe(page_of("attention", name=name)) for name in ("one", "other"))
    assert (one.name, other.name) == ("one", "other")
    assert one.graph == other.graph and one.hash == other.hash and one.train == other.train


def test_a_label_that_nothing_reads_is_told_and_changes_nothing():
    plain, told = (load_recipe(page_of(node)) for node in ("glu", {"glu": {}, "as": "s"}))
    assert plain.graph == told.graph and plain.hash == told.hash
    assert {w.code for w in told.warnings} - {w.code for w in plain.warnings} == {"unread-label"}


@pytest.mark.slow
@settings(max_examples=25)
@given(page=pages(), data=st.data())
def test_a_key_that_is_no_word_is_refused_wherever_it_stands(page, data):
    path = data.draw(st.sampled_from(list(maps(page))))
    assert loaded(changed(page, path, lambda inside: {**inside, "unheard_of": 1})) is None


def maps(value, path=()):
    """The way to every map on a page."""
    if isinstance(value, dict):
        yield path
    for key, inside in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inside, dict | list):
            yield from maps(inside, (*path, key))
