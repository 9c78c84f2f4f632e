"""The table of tensors, and what is said when a folder does not fit it."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import hf_bridge
from builder.errors import BuilderError
from hf_bridge.weights import Deal, Same, Transpose, matching, read_layout, shapes
from hf_bridge.write_hf import write_weights
from tests.hf_folders import GPT2, LLAMA, built, read, written

# Names of the library that a test must spell out to spoil a file.
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    hf_bridge.to_hf(built(LLAMA), folder / "llama")
    hf_bridge.to_hf(built(LLAMA.replace("- lm_head", "- lm_head: {tie: true}")), folder / "tied")
    hf_bridge.to_hf(built(GPT2), folder / "gpt2")
    return folder


def copied(exported, tmp_path, name="llama", change=lambda tensors: tensors, config=()):
    """A copy of an exported folder with its tensors changed."""
    folder = written(tmp_path / name, read(exported / name / "config.json") | dict(config))
    tensors = change(dict(load_file(exported / name / "model.safetensors")))
    save_file(tensors, folder / "model.safetensors")
    return folder


def without(*names):
    return lambda tensors: {k: v for k, v in tensors.items() if k not in names}


@given(
    st.integers(1, 4),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 2),
)
@settings(deadline=None)
def test_every_layout_is_undone_by_its_inverse(runs, sizes, transposed, columns):
    names = tuple("abcd"[: len(sizes)])
    ours = {
        name: torch.randn(runs * rows, *[columns + 1] * (columns > 0))
        for name, rows in zip(names, sizes, strict=True)
    }
    layout = Transpose(Deal(runs, names)) if transposed else Deal(runs, names)
    theirs = layout.theirs(ours)
    assert shapes(ours, layout) == theirs.shape
    back = layout.ours(theirs, ours)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in names)


def test_dealing_by_heads_puts_each_head_s_parts_together():
    ours = {"q": torch.tensor([0, 1, 2, 3]), "k": torch.tensor([10, 11])}
    assert Deal(2, ("q", "k")).theirs(ours).tolist() == [0, 1, 10, 2, 3, 11]


def test_a_row_s_right_side_says_its_layout():
    sizes = {"layers.2.attention": {"heads": 4}}
    read_row = read_layout("transpose(deal(heads, attention.[q,k].weight))", "layers.2.", sizes)
    parts = ("layers.2.attention.q.weight", "layers.2.attention.k.weight")
    assert read_row == Transpose(Deal(4, parts))
    assert read_layout("a.weight", "", {}) == Same("a.weight")
    with pytest.raises(ValueError, match="'twist' is not a layout"):
        read_layout("twist(a)", "", {})


def test_a_star_in_a_pattern_is_one_word():
    assert matching("h.3.attn.bias", {"h.*.attn.bias": "mask"}) == "mask"
    assert matching("h.3.x.attn.bias", {"h.*.attn.bias": "mask"}) is None


@pytest.mark.parametrize(
    ("code", "name", "change", "config"),
    [
        ("weights-missing", QUERY, without(QUERY), {}),
        ("weights-missing", HEAD, without(HEAD), {}),
        ("weights-unused", "extra", lambda t: t | {"extra": torch.ones(1)}, {}),
        ("weights-unused", QUERY, lambda t: t, {"num_hidden_layers": 1}),
        ("weights-shape", QUERY, lambda t: t | {QUERY: t[QUERY][:-1].clone()}, {}),
        ("weights-shape", EMBEDDING, lambda t: t, {"vocab_size": 30}),
        ("weights-dtype", QUERY, lambda t: t | {QUERY: t[QUERY].to(torch.int8)}, {}),
        ("tied-differs", HEAD, lambda t: t, {"tie_word_embeddings": True}),
    ],
)
def test_a_file_that_does_not_fit_is_told_with_file_and_tensor(
    exported, tmp_path, code, name, change, config
):
    folder = copied(exported, tmp_path, change=change, config=config)
    with pytest.raises(BuilderError) as refused:
        hf_bridge.from_hf(folder)
    assert (refused.value.code, refused.value.exit_code) == (code, 5)
    assert name in refused.value.message or "model.layers.1" in refused.value.message
    assert str(folder) in refused.value.message


def test_both_shapes_are_told(exported, tmp_path):
    folder = copied(exported, tmp_path, change=lambda t: t | {QUERY: t[QUERY][:-1].clone()})
    with pytest.raises(BuilderError, match=r"is \(15, 16\), and config.json asks for \(16, 16\)"):
        hf_bridge.from_hf(folder)


def test_a_tied_head_is_read_only_to_be_compared(exported, tmp_path):
    plain, _ = hf_bridge.from_hf(exported / "tied")
    folder = copied(exported, tmp_path, "tied", lambda t: t | {HEAD: t[EMBEDDING].clone()})
    again, _ = hf_bridge.from_hf(folder)
    ids = torch.arange(8)[None]
    assert torch.equal(plain(ids), again(ids))


def test_what_can_be_computed_again_is_skipped(exported, tmp_path):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    hf_bridge.from_hf(copied(exported, tmp_path, change=lambda t: t | {name: torch.ones(2)}))


def test_a_body_saved_without_its_first_word_is_read(exported, tmp_path):
    def bare(tensors):
        return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}

    whole, _ = hf_bridge.from_hf(exported / "gpt2")
    body, _ = hf_bridge.from_hf(copied(exported, tmp_path, "gpt2", bare))
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, body.get_parameter(name)), name


def test_a_damaged_file_is_told_as_such(exported, tmp_path):
    folder = copied(exported, tmp_path)
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(BuilderError) as refused:
        hf_bridge.from_hf(folder)
    assert (refused.value.code, refused.value.exit_code) == ("damaged-weights", 5)


@pytest.fixture
def sharded(exported, tmp_path):
    folder = written(tmp_path / "sharded", read(exported / "llama/config.json"))
    tensors = load_file(exported / "llama/model.safetensors")
    write_weights(folder, iter(tensors.items()), limit=4000)
    return folder


def test_shards_are_read_as_one_file_is(exported, sharded):
    assert len(list(sharded.glob("model-*-of-*.safetensors"))) > 3
    one, _ = hf_bridge.from_hf(exported / "llama")
    many, _ = hf_bridge.from_hf(sharded)
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, many.get_parameter(name)), name


def test_the_library_reads_our_shards(exported, sharded):
    from transformers import AutoModelForCausalLM

    one = AutoModelForCausalLM.from_pretrained(exported / "llama").state_dict()
    many = AutoModelForCausalLM.from_pretrained(sharded).state_dict()
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_a_missing_shard_is_named(sharded):
    lost = sorted(sharded.glob("model-*"))[1]
    lost.unlink()
    with pytest.raises(BuilderError, match=lost.name) as refused:
        hf_bridge.from_hf(sharded)
    assert (refused.value.code, refused.value.exit_code) == ("weights-missing", 5)


def test_a_tensor_that_the_index_promises_and_no_shard_holds_is_named(sharded):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.ghost"] = sorted(sharded.glob("model-*"))[0].name
    path.write_text(json.dumps(index))
    with pytest.raises(BuilderError, match=r"model\.ghost"):
        hf_bridge.from_hf(sharded)
