"""Whatever the grammar lets one write keeps every law."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from builder import build, load_recipe
from builder.graph import Filler, leaves
from builder.index import load_index
from builder.laws import LAWS, Case, case, hold, pages, recipes
from builder.laws.authors import registered_meanwhile
from builder.laws.causality import is_causal_by_gradient, is_causal_by_value
from builder.laws.machine import CacheMachine
from builder.laws.parameters import initial_weights_are_keyed
from builder.laws.spellings import spelling_changes_nothing
from builder.laws.strategies import respellings, swaps

DIMS = {"dim": 8, "heads": 2, "ff": 6, "vocab": 11, "context": 24}


def recipe_of(*model, blocks=None, **dims):
    page = {"recipe": 1, "dims": DIMS | dims, "blocks": blocks or {}, "model": list(model)}
    return load_recipe(page)


SAME_NAMES = recipe_of(  # the second gain after mlp, and the first after mlp_2
    "token_embedding",
    {"repeat": 1, "block": ["mlp", {"gain": 1.5}, {"gain": 1.5}, "mlp", {"gain": 1.5}]},
    "lm_head",
)
SHARED_EXPERTS = recipe_of(
    "token_embedding", {"repeat": 2, "block": "moe", "share": True}, "lm_head", experts=3
)
SHARED_UNLIKE = recipe_of(  # one mixture in two layers, of another balance in each
    "token_embedding",
    {
        "repeat": 2,
        "block": {"moe": {"expert": ["rmsnorm", "mlp"], "balance": "1 / (layer + 1)"}},
        "share": True,
    },
    "lm_head",
    experts=3,
)
WINDOWS = recipe_of(  # the band, the cache's end and the replay after a crop
    "token_embedding",
    {"repeat": 2, "block": {"attention": {"position": "rope", "mask": {"sliding_window": 3}}}},
    "lm_head",
)
CHUNKS = recipe_of(  # in a padded row, and in a second document, they begin elsewhere
    "token_embedding", {"repeat": 2, "block": {"attention": {"mask": {"chunked": 4}}}}, "lm_head"
)
VANISHING = recipe_of(  # products of products of small numbers: in the end all are 0
    "token_embedding",
    {"repeat": 6, "block": {"linear_attention": {"feature": "none", "gate": "relu2"}}},
    "lm_head",
)
FAINT = recipe_of(  # not small enough yet to be 0: the next leaf's product is
    "token_embedding",
    {
        "repeat": 5,
        "block": [{"gated_delta": {"heads": 1, "head_dim": 1}}, {"short_conv": {"act": "relu2"}}],
    },
    "lm_head",
)
SELDOM = recipe_of(  # one unit, dead in most draws, and then another
    "token_embedding",
    {
        "repeat": 2,
        "block": ["rmsnorm", {"linear_attention": {"heads": 1, "head_dim": 1, "feature": "relu"}}],
    },
    "lm_head",
)
CANCELLING = recipe_of(  # elu(-30) + 1 has three digits left in float64
    "token_embedding",
    {"scale": 120.0},
    {"linear_attention": {"kv_heads": 1, "head_dim": 1, "norm": True}},
    "lm_head",
)
SATURATED = recipe_of(  # scores so large that their soft cap has no gradient
    "token_embedding",
    {"scale": 100.0},
    {"attention": {"softcap": 0.001}},
    "lm_head",
)
BENT = recipe_of(  # one bends below 0, which nothing reaches; of the other nothing is left there
    "token_embedding",
    {"act": "sigmoid"},
    {"act": "xielu"},
    {"linear": 8},
    {"scale": 0.1},
    {"act": "xielu"},
    {"act": "relu"},
    "lm_head",
)

FOUND = {  # recipes that once broke a law
    "names that were given twice": SAME_NAMES,
    "experts in shared layers": SHARED_EXPERTS,
    "shared layers unlike each other": SHARED_UNLIKE,
    "a window's band, its cache's end, and the replay after a crop": WINDOWS,
    "a chunk that a padded row begins elsewhere": CHUNKS,
    "numbers that vanish": VANISHING,
    "numbers that vanish one leaf on": FAINT,
    "two units that are seldom alive together": SELDOM,
    "features of which rounding leaves three digits": CANCELLING,
    "a soft cap that is saturated": SATURATED,
    "a function of which one side is never seen": BENT,
}
RECIPES = int(os.environ.get("RECIPES", "2000"))  # `make prove` draws more
EVERY = int(os.environ.get("EVERY", "5"))  # each law is asked of every fifth, dear ones of fewer
SHARD = 100


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_law_holds_for_what_once_broke_one(law):
    for recipe in FOUND.values():
        for number in range(3):
            LAWS[law](Case(recipe, number))


@settings(max_examples=15)
@given(recipe=recipes(), number=st.integers(0, 999))
def test_every_law_holds_for_a_few_recipes(recipe, number):
    """What `make check` has time for."""
    hold(Case(recipe, number))


def hold_shard(shard, examples, every, record_property):
    """Hold so many drawn recipes to the laws, and record what each was asked and its largest error.

    Shards spread the draws over processes, and leave little to draw again if one fails.
    """
    errors: dict[str, list[float]] = {name: [] for name in LAWS}

    @seed(shard)
    @settings(max_examples=examples)
    @given(recipe=recipes(), number=st.integers(0, 999))
    def holds(recipe, number):
        for name, error in hold(Case(recipe, number), every).items():
            errors[name].append(error)

    holds()
    for name, found in errors.items():
        record_property(f"law {name}", [len(found), max(found, default=0.0)])


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(RECIPES // SHARD))
def test_every_law_holds_for_every_recipe(shard, record_property):
    hold_shard(shard, SHARD, EVERY, record_property)


@pytest.mark.slow
class TestACacheStandsForTheIdsThatItHasRead(CacheMachine.TestCase):
    settings = settings(max_examples=RECIPES // 20, stateful_step_count=12)


@pytest.mark.slow
@given(pair=respellings(), number=st.integers(0, 999))
def test_two_spellings_are_one_model(pair, number):
    spelling_changes_nothing(Case(pair[0], number), pair[1])


@pytest.mark.slow
@given(pair=swaps(), number=st.integers(0, 999))
def test_swapping_a_block_leaves_every_other_weight_as_it_was(pair, number):
    initial_weights_are_keyed(Case(pair[0], number), pair[1])


def test_weights_of_two_variants_agree_where_their_names_do():
    """The law above is not empty: most of a model is outside of what was swapped."""
    ours = recipe_of("token_embedding", {"repeat": 2, "block": ["attention", "glu"]}, "lm_head")
    theirs = recipe_of("token_embedding", {"repeat": 2, "block": ["attention", "mlp"]}, "lm_head")
    first = dict(build(ours, seed=3).named_parameters())
    second = dict(build(theirs, seed=3).named_parameters())
    same = [name for name in first if name in second and torch.equal(first[name], second[name])]
    assert {name for name in first if "glu" not in name} == set(same)
    other = dict(build(ours, seed=4).named_parameters())
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


# The strategies


def fillers_of(block):
    """What fills the slots of a block, and theirs."""
    for _, value in block.options:
        if isinstance(value, Filler):
            yield value.kind, value.word
            yield from fillers_of(value)


def words_of_drawn(count, holding=()):
    """The words of so many drawn recipes, by kind."""
    seen: set[tuple[str, str]] = set()

    @settings(max_examples=count)
    @given(recipe=recipes(holding=holding))
    def draw(recipe):
        for leaf in leaves(recipe.graph):
            seen.add(("node", leaf.word))
            seen.update(fillers_of(leaf))

    draw()
    return {("node" if kind == "norm" else kind, word) for kind, word in seen}


@pytest.mark.slow
def test_every_registered_word_is_drawn():
    """Registering is joining: a new block needs no line in the strategies.  What stands in a slot
    of a slot is drawn seldom, and is asked for.
    """
    sections = {"data", "init", "optimizer", "schedule", "section", "tokenizer"}
    registered = {(e.namespace, e.word) for e in load_index() if e.namespace not in sections}
    missing = registered - words_of_drawn(150)
    assert len(missing) <= len(registered) / 5
    assert all((kind, word) in words_of_drawn(8, (word,)) for kind, word in missing)


@pytest.mark.slow
@given(page=pages())
def test_every_drawn_page_resolves(page):
    assert load_recipe(page).graph.items


@pytest.mark.slow
def test_a_plug_in_is_drawn_with_its_options(tmp_path):
    path = tmp_path / "my_blocks.py"
    path.write_text(PLUGIN)
    seen = set()

    @settings(max_examples=30)
    @given(recipe=recipes(plugins=[path], holding=("shrink",)), number=st.integers(0, 9))
    def draw(recipe, number):
        found = [leaf for leaf in leaves(recipe.graph) if leaf.word == "shrink"]
        seen.update(leaf["twice"] for leaf in found)
        if found:
            is_causal_by_value(Case(recipe, number))

    with registered_meanwhile([path]):
        draw()
    assert seen == {True, False}


PLUGIN = '''
from torch import Tensor, nn

from blocks.registry import register


@register("shrink", kind="mixer")
class Shrink(nn.Module):
    """Half of ``x``, or a quarter."""

    def __init__(self, dim: int, *, twice: bool = False) -> None:
        super().__init__()
        self.factor = 0.25 if twice else 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor
'''


# The laws themselves: each sees what it is for


def test_a_law_names_the_first_leaf_that_differs(monkeypatch):
    recipe = recipe_of("token_embedding", "glu", {"repeat": 2, "block": "attention"}, "lm_head")

    def build_leaky(recipe, **given):
        model = build(recipe, **given)
        inner = model.layers[2].attention.forward
        model.layers[2].attention.forward = lambda x, call, cache=None: (
            inner(x, call) + x.mean(1, True)
        )
        return model

    monkeypatch.setattr(case, "build", build_leaky)
    with pytest.raises(AssertionError, match=r"first after layers\.2\.attention"):
        is_causal_by_value(Case(recipe))
    with pytest.raises(AssertionError, match="token 0 reads token 1, which is later"):
        is_causal_by_gradient(Case(recipe))


def test_a_copy_of_a_model_is_its_own():
    model = build(recipe_of("token_embedding", "glu", {"lm_head": {"tie": True}}))
    other = copy.deepcopy(model)
    assert other.lm_head.weight is other.token_embedding.weight
    assert other.lm_head.weight is not model.lm_head.weight
