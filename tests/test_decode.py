"""Steps of fixed shapes, as torch compiles them, read as the model does, whatever the recipe."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import pytest
import torch

import builder.generate
from blocks.moe import MoE
from builder import load_recipe
from builder.decode import Decoder, NotCompiled
from builder.laws import Case
from builder.laws.caches import fixed_steps_equal_full
from builder.laws.case import model_of
from builder.laws.probe import TOLERANCE, distance

VOCAB, CONTEXT, ROWS, PROMPT = 29, 40, 2, 5
DIMS = {"dim": 16, "heads": 4, "kv_heads": 2, "ff": 24, "vocab": VOCAB, "context": CONTEXT}
ATTENTION = {"attention": {"position": "rope", "mask": {"sliding_window": 6}, "bias": True}}
BLOCKS = {
    "windowed": [{"residual": ["rmsnorm", ATTENTION]}, {"residual": ["rmsnorm", "glu"]}],
    "summed": [{"residual": ["rmsnorm", "linear_attention"]}, {"residual": ["rmsnorm", "mlp"]}],
    "sparse": [{"residual": ["rmsnorm", {"moe": {"experts": 5}}]}],
    "convolved": [{"residual": ["rmsnorm", "short_conv"]}, {"residual": ["layernorm", "mlp"]}],
}


def recipe_of(pattern, **layer):
    model = ["token_embedding", {"repeat": 4, "pattern": pattern}, "rmsnorm", "lm_head"]
    blocks = {word: block for word, block in {**BLOCKS, **layer}.items() if word in pattern}
    page = {"recipe": 1, "dims": DIMS, "blocks": blocks, "model": model}
    return load_recipe(page)


def uncompiled(traced, given):
    return traced


def ids_of(length):
    return torch.arange(ROWS * length).reshape(ROWS, length) * 7 % VOCAB


def left(length):
    """Padding of a prompt whose second row is shorter, in room for all."""
    padding = torch.zeros(ROWS, length, dtype=torch.bool)
    padding[1, :3] = True
    return padding


@torch.no_grad()
def stepped(model, ids, padding=None, **options):
    """Logits of all places behind the prompt, step by step."""
    cache, room = model.new_cache(len(ids)), ids.shape[1]
    before = None if padding is None else padding[:, :PROMPT]
    model(ids[:, :PROMPT], cache=cache, padding=before)
    step = Decoder(model, cache, room, padding, **options)
    return torch.stack([step(ids[:, n : n + 1]) for n in range(PROMPT, room)], 1)


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
def test_compiled_steps_read_as_the_model_does(padded):
    """Past a window, with layers of four kinds, of which two are alike."""
    model = model_of(recipe_of(["windowed", "summed", "convolved", "sparse", "windowed"]), 0).eval()
    ids = ids_of(20)
    padding = left(20) if padded else None
    with torch.no_grad():
        full = model(ids, padding=padding)[:, PROMPT:]
    assert distance(stepped(model, ids, padding), full) <= TOLERANCE


def test_layers_that_are_alike_are_compiled_once():
    model = model_of(recipe_of(["windowed", "windowed", "summed", "windowed"]), 0).eval()
    made = []
    stepped(model, ids_of(9), lower=lambda traced, given: made.append(traced) or traced)
    assert len(made) == 4  # what stands before, two kinds of layers, and what stands behind


def test_what_reads_the_same_is_one_product():
    model = model_of(recipe_of(["windowed"]), 0).eval()
    made = []
    stepped(model, ids_of(9), lower=lambda traced, given: made.append(traced) or traced)
    products = Counter(str(n.target) for n in made[1].graph.nodes if "mm" in str(n.target))
    assert products == {"aten.addmm.default": 1, "aten.mm.default": 3}  # q k v, o, gate up, down


def short(state, room):
    """Room for six positions, whatever is asked for."""
    return tuple(b.new_zeros(*b.shape[:2], 6, b.shape[3]) for b in state.buffers)


@pytest.mark.parametrize("weigh", ["input", "output"])
@pytest.mark.parametrize("experts", [3, 9])
def test_experts_have_steps_of_fixed_shapes(experts, weigh):
    """A product for each choice, and for each expert where those are fewer."""
    moe = {"moe": {"experts": experts, "weigh": weigh}}
    model = model_of(recipe_of(["few"], few=[{"residual": ["rmsnorm", moe]}]), 0).eval()
    ids = ids_of(12)
    with torch.no_grad():
        full = model(ids)[:, PROMPT:]
    assert distance(stepped(model, ids, lower=uncompiled), full) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("blocks.attend.places_of", lambda size, newest: torch.arange(size)),
        ("builder.decode.with_room", short),
    ],
)
def test_law_sees_a_static_cache_that_is_wrong(name, broken):
    case = Case(recipe_of(["windowed"]))
    assert fixed_steps_equal_full(case) <= TOLERANCE
    with patch(name, broken), pytest.raises(AssertionError, match="fixed shapes"):
        fixed_steps_equal_full(case)


@pytest.mark.slow
def test_matrices_of_8_bits_err_by_a_few_hundredths():
    """Of the logits' spread; and the kernel, which adds in 16 bits, never overflows."""
    model = model_of(recipe_of(["windowed", "summed"]), 0).float().eval()
    ids = ids_of(20)
    with torch.no_grad():
        full = model(ids)[:, PROMPT:]
    error = (stepped(model, ids, int8=True) - full).square().mean().sqrt() / full.std()
    assert 1e-4 < float(error) < 0.1


# Generation


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"compile": True}, {"compile": "auto"}, {"int8": True}])
def test_compiled_generation_gives_the_same_tokens(options, monkeypatch):
    monkeypatch.setattr(builder.generate, "BASE", 0.0)
    monkeypatch.setattr(builder.generate, "EACH", 0.0)  # so that it always pays
    model = model_of(recipe_of(["windowed"]), 0)
    model = model.float() if "int8" in options else model
    padding = left(7)
    made = []
    monkeypatch.setattr(Decoder, "__init__", noting(Decoder.__init__, made))
    found = model.generate(ids_of(7), 14, temperature=0, padding=padding, **options)
    plain = model.generate(ids_of(7), 14, temperature=0, padding=padding)
    assert len(made) == 1
    assert found.shape == plain.shape and ("int8" in options or torch.equal(found, plain))


def test_what_is_compiled_serves_the_next_text_and_follows_the_weights(monkeypatch):
    """Also where they are changed behind torch's back."""
    made = []
    monkeypatch.setattr("builder.decode.inductor", lambda traced, _: made.append(1) or traced)
    model = model_of(recipe_of(["windowed"]), 0)
    options = {"temperature": 0, "compile": True}
    model.generate(ids_of(7), 14, **options)
    first = len(made)
    model.layers[2].glu.down.weight.data.mul_(-3)
    model.lm_head.weight.data = model.lm_head.weight.data.flip(0)
    found = model.generate(ids_of(9), 9, **options)
    assert len(made) == first == 3
    assert torch.equal(found, model.generate(ids_of(9), 9, temperature=0))
    model.generate(ids_of(7)[:1], 14, **options)  # another number of rows
    assert len(made) == 2 * first


@pytest.mark.parametrize("word", ["convolved", "summed"])
def test_texts_that_begin_with_less_are_read_as_they_are(word, monkeypatch):
    """What a convolution remembers of one token is less than of five."""
    monkeypatch.setattr("builder.decode.inductor", lambda traced, _: traced)
    model = model_of(recipe_of([word]), 0)
    for length in (1, 5, 2):
        found = model.generate(ids_of(length), 6, temperature=0, compile=True)
        assert torch.equal(found, model.generate(ids_of(length), 6, temperature=0))


def noting(method, made):
    def noted(*given, **named):
        made.append(1)
        return method(*given, **named)

    return noted


def test_a_short_text_is_not_compiled():
    model = model_of(recipe_of(["windowed"]), 0)
    with patch("builder.decode.Decoder", side_effect=AssertionError):
        model.generate(ids_of(7), 14, temperature=0, compile="auto")


def test_a_block_that_asks_what_its_numbers_are_goes_on_with_a_warning(monkeypatch):
    def asking(moe, flat, weights, chosen):
        return flat * int(chosen[0, 0])

    model = model_of(recipe_of(["sparse"]), 0)
    plain = model.generate(ids_of(7), 5, temperature=0)
    monkeypatch.setattr(MoE, "_step", asking)
    with pytest.warns(UserWarning, match="the steps are not compiled: "):
        found = model.generate(ids_of(7), 5, temperature=0, compile=True)
    assert torch.equal(found, plain)
    with pytest.raises(NotCompiled):
        stepped(model.eval(), ids_of(9), lower=uncompiled)


def test_a_given_cache_is_not_compiled():
    model = model_of(recipe_of(["windowed"]), 0)
    with pytest.raises(ValueError, match="a cache of their own"):
        model.generate(ids_of(7), 5, cache=model.new_cache(ROWS), compile=True)
