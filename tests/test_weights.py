"""The table of tensors, and what is said when a folder does not fit it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import hf_bridge
from builder.errors import BuilderError
from hf_bridge.exporting import find_fit
from hf_bridge.layouts import Deal, Names, Same, Transpose, shape_of
from hf_bridge.weights import matching, table
from hf_bridge.write_hf import native_tensors, write_native, write_weights
from tests.hf_folders import GPT2, LLAMA, built, read, written
from tests.streaming import measured

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
    assert shape_of(layout, ours) == theirs.shape
    back = layout.ours(theirs, ours)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in names)


EXPERTS = {
    "gate": (3, 4, 5),
    "up": (3, 4, 5),
    "down": (3, 5, 4),
    "gate_bias": (3, 4),
    "up_bias": (3, 4),
}


def experts():
    """Three experts' tensors, stacked."""
    generator = torch.Generator().manual_seed(0)
    ours = {name: torch.randn(shape, generator=generator) for name, shape in EXPERTS.items()}
    for tensor in ours.values():
        tensor.stacked = True
    return ours


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("gate", lambda t: t["gate"]),
        ("transpose(down)", lambda t: t["down"].mT),
        ("transpose(gate_bias)", lambda t: t["gate_bias"]),
        ("concat([gate,up])", lambda t: torch.cat([t["gate"], t["up"]], 1)),
        ("transpose(concat(gate, up))", lambda t: torch.cat([t["gate"].mT, t["up"].mT], 2)),
        ("deal(4, [gate,up])", lambda t: torch.stack([t["gate"], t["up"]], 2).reshape(3, 8, 5)),
        (
            "deal(ff, gate_bias, up_bias)",
            lambda t: torch.stack([t["gate_bias"], t["up_bias"]], 2).reshape(3, 8),
        ),
        ("flat(gate)", lambda t: torch.cat([*t["gate"]])),
        ("flat(transpose(down))", lambda t: torch.cat([*t["down"].mT])),
        ("transpose(flat(gate))", lambda t: torch.cat([*t["gate"]]).T),
        ("flat(concat(gate, up))", lambda t: torch.cat([*torch.cat([t["gate"], t["up"]], 1)])),
    ],
)
def test_the_rows_of_stacked_experts_come_after_the_experts(written, expected):
    ours = {f"moe.{name}": tensor for name, tensor in experts().items()}
    layout = Names(ours, {"moe": {"ff": 4}}, "moe.").read(written)
    parts = layout.parts(ours)
    theirs = layout.theirs(parts)
    assert torch.equal(theirs, expected(experts()))
    assert shape_of(layout, ours) == theirs.shape
    back = layout.ours(theirs, parts)
    assert back.keys() == parts.keys()
    assert all(torch.equal(back[name], part) for name, part in parts.items())


def test_dealing_by_heads_puts_each_head_s_parts_together():
    ours = {"q": torch.tensor([0, 1, 2, 3]), "k": torch.tensor([10, 11])}
    assert Deal(2, ("q", "k")).theirs(ours).tolist() == [0, 1, 10, 2, 3, 11]


def test_a_row_s_right_side_says_its_layout():
    parts = ("layers.2.attention.q.weight", "layers.2.attention.k.weight")
    ours = {name: torch.ones(8, 3) for name in parts}
    below = Names(ours, {"layers.2.attention": {"heads": 4}}, "layers.2.")
    read_row = below.read("transpose(deal(heads, attention.[q,k].weight))")
    assert read_row == Transpose(Deal(4, parts))
    assert Names({}).read("a.weight") == Same("a.weight")
    with pytest.raises(ValueError, match="'twist' is not a layout"):
        Names({}).read("twist(a)")
    with pytest.raises(ValueError, match="has no size 'ways'"):
        below.read("deal(ways, attention.[q,k].weight)")


def test_a_star_in_a_pattern_is_one_word():
    assert matching("h.3.attn.bias", {"h.*.attn.bias": "mask"}) == "mask"
    assert matching("h.3.x.attn.bias", {"h.*.attn.bias": "mask"}) is None


def test_an_arrow_in_a_pattern_is_a_layer_past_the_last_and_two_stars_the_rest():
    after = {"model.layers.>.**": "after"}
    assert matching("model.layers.12.mlp.up.weight", after, layers=12) == "after"
    assert matching("model.layers.12.norm", after, layers=12) == "after"
    assert matching("model.layers.11.norm", after, layers=12) is None
    assert matching("model.layers.12", after, layers=12) is None
    assert matching("model.layers.x.norm", after, layers=12) is None


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


def moved(index, name, to):
    index["weight_map"][name] = to


@pytest.mark.parametrize(
    ("named", "spoil"),
    [
        (f"{HEAD}, and", lambda index, shards: moved(index, HEAD, shards[1])),
        ("does not list it", lambda index, shards: index["weight_map"].pop(HEAD)),
    ],
)
def test_an_index_that_contradicts_its_shards_is_told(sharded, named, spoil):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    spoil(index, sorted(set(index["weight_map"].values())))
    path.write_text(json.dumps(index))
    with pytest.raises(BuilderError, match=named) as refused:
        hf_bridge.from_hf(sharded)
    assert (refused.value.code, refused.value.exit_code) == ("weights-index", 5)


def test_a_tensor_in_two_shards_is_told(sharded):
    shards = sorted(sharded.glob("model-*"))
    again = load_file(shards[0])
    save_file(again | load_file(shards[1]), shards[1])
    with pytest.raises(BuilderError, match=shards[1].name) as refused:
        hf_bridge.from_hf(sharded)
    assert refused.value.code == "weights-index"


def test_a_shard_that_the_index_does_not_name_is_told(sharded):
    save_file({"x": torch.ones(1)}, sharded / "model-00099-of-00099.safetensors")
    with pytest.raises(BuilderError, match="model-00099-of-00099") as refused:
        hf_bridge.from_hf(sharded)
    assert refused.value.code == "weights-index"


@pytest.mark.parametrize(
    ("value", "dtype", "told"),
    [
        (float("nan"), torch.float32, "holds NaN"),
        (1e5, torch.float16, "too large for torch.float16"),
        (float("inf"), torch.float32, None),
        (1e5, torch.bfloat16, None),
    ],
)
def test_numbers_that_are_none_or_would_become_none_are_refused(
    exported, tmp_path, value, dtype, told
):
    def spoilt(tensors):
        tensors[QUERY][3, 2] = value
        return tensors

    folder = copied(exported, tmp_path, change=spoilt)
    if told is None:
        hf_bridge.from_hf(folder, dtype=dtype)
        return
    with pytest.raises(BuilderError, match=told) as refused:
        hf_bridge.from_hf(folder, dtype=dtype)
    assert (refused.value.code, refused.value.exit_code) == ("weights-numbers", 5)
    assert QUERY in refused.value.message


def test_the_dtype_of_most_numbers_is_the_model_s(exported, tmp_path):
    def mixed(tensors):
        return {n: t if "norm" in n else t.to(torch.bfloat16) for n, t in tensors.items()}

    model, _ = hf_bridge.from_hf(copied(exported, tmp_path, change=mixed))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_an_exported_folder_bears_the_sums_of_its_files(exported):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=exported / "llama",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summed = {line.rpartition(": ")[0] for line in done.stdout.splitlines()}
    assert summed == {path.name for path in (exported / "llama").iterdir()} - {"SHA256SUMS"}


# Experts, other layouts and numbers, by a family file of our own

SPARSE = """
like: llama
model_type: sparse
architecture: SparseForCausalLM
config: {num_experts: 4, mlp_bias: absent}
set:
  recipe.blocks.decoder.glu:
    moe: {experts: $num_experts, expert: {glu: {act: {use: act, at: $hidden_act}}}}
  weights."model.layers.*":
    mlp.{gate,up,down}_proj.{weight,bias}: absent
    post_attention_layernorm.weight: rmsnorm_before_moe.weight
    mlp.router.weight: moe.router.score.weight
    mlp.experts.#.{gate,up,down}_proj.weight: moe.experts.{gate,up,down}.weight
    mlp.limit: {by: layer, cases: {0: constant(0.3), _: absent}}
also_read:
  model.layers.*:
    mlp.experts.gate_up_proj: transpose(concat(moe.experts.[gate,up].weight))
    mlp.experts.down_proj: flat(transpose(moe.experts.down.weight))
ignore_weights:
  a head for the token after next: [model.layers.>.**]
"""
MOE = "model.layers.1.mlp"


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A folder of the family above, with its file and its model."""
    folder = tmp_path_factory.mktemp("sparse")
    (folder / "sparse.yaml").write_text(SPARSE)
    model = built(LLAMA.replace("ff: 24", "ff: 6").replace("glu]", "{moe: {experts: 4}}]"))
    fit = find_fit(model.recipe.graph, folder / "sparse.yaml")
    ours = dict(model.named_parameters())
    rows = table(fit.family, fit.imported.scope, model.recipe.graph, ours)
    write_native(folder, fit.config, native_tensors(rows, ours), None)
    return folder


def sparse_copy(sparse, tmp_path, change):
    save_file(change(load_file(sparse / "model.safetensors")), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((sparse / "config.json").read_bytes())
    return hf_bridge.from_hf(tmp_path, family=sparse / "sparse.yaml")[0]


def packed(tensors, layers=range(3)):
    """The same with the experts of these layers in two tensors."""
    tensors = dict(tensors)
    for layer in layers:
        names = [f"model.layers.{layer}.mlp.experts.{e}" for e in range(4)]
        gate, up, down = (
            [tensors.pop(f"{name}.{part}_proj.weight") for name in names]
            for part in ("gate", "up", "down")
        )
        joined = [torch.cat(pair).T for pair in zip(gate, up, strict=True)]
        tensors[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = torch.stack(joined)
        tensors[f"model.layers.{layer}.mlp.experts.down_proj"] = torch.cat([d.T for d in down])
    return tensors


def test_experts_are_written_one_by_one_and_read_back(sparse, tmp_path):
    tensors = load_file(sparse / "model.safetensors")
    model = sparse_copy(sparse, tmp_path, dict)
    assert tensors[f"{MOE}.experts.3.up_proj.weight"].shape == (6, 16)
    up = model.get_parameter("layers.1.moe.experts.up.weight")
    assert torch.equal(up[3], tensors[f"{MOE}.experts.3.up_proj.weight"])
    assert "model.layers.0.mlp.limit" in tensors
    assert f"{MOE}.limit" not in tensors


@pytest.mark.parametrize("layers", [range(3), [1]])
def test_another_layout_of_the_same_tensors_is_read(sparse, tmp_path, layers):
    plain = sparse_copy(sparse, tmp_path, dict)
    other = sparse_copy(sparse, tmp_path, lambda tensors: packed(tensors, layers))
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


def test_layers_past_the_last_are_skipped_where_the_family_says_so(sparse, tmp_path):
    more = {f"model.layers.3.{tail}": torch.ones(1) for tail in ("norm", "mlp.experts.0.up.weight")}
    sparse_copy(sparse, tmp_path, lambda tensors: tensors | more)
    with pytest.raises(BuilderError, match=r"model\.layers\.2\.norm"):
        sparse_copy(sparse, tmp_path, lambda t: t | {"model.layers.2.norm": torch.ones(1)})


@pytest.mark.parametrize(
    ("code", "named", "change"),
    [
        ("weights-missing", f"{MOE}.experts.2.up_proj", without(f"{MOE}.experts.2.up_proj.weight")),
        (
            "weights-missing",
            "mlp.experts",
            lambda t: without(f"{MOE}.experts.down_proj")(packed(t)),
        ),
        ("weights-unused", "which are one thing", lambda t: t | packed(t)),
        (
            "weights-unused",
            f"{MOE}.experts.4",
            lambda t: t | {f"{MOE}.experts.4.up_proj.weight": 1},
        ),
        ("weights-refused", "is 0.5", lambda t: t | {"model.layers.0.mlp.limit": 0.5}),
        ("weights-shape", "()", lambda t: t | {"model.layers.0.mlp.limit": [0.3, 0.3]}),
    ],
)
def test_experts_and_numbers_that_do_not_fit_are_told(sparse, tmp_path, code, named, change):
    def changed(tensors):
        return {name: torch.as_tensor(t).float().clone() for name, t in change(tensors).items()}

    with pytest.raises(BuilderError) as refused:
        sparse_copy(sparse, tmp_path, changed)
    assert (refused.value.code, refused.value.exit_code) == (code, 5)
    assert named in refused.value.message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("mlp.again.weight: moe.experts.up.weight", "holds layers.0.moe.experts.up.weight, as"),
        ("input_layernorm.#.weight: rmsnorm_before_moe.weight", "no stack of them"),
        ("mlp.pair.weight: concat(moe.experts.up.weight, moe.experts.up.bias)", "only some"),
        ("mlp.{a,b}.weight: moe.experts.up.weight", "do not pair off"),
    ],
)
def test_a_row_that_cannot_be_is_told_to_the_family_s_author(sparse, tmp_path, row, said):
    bad = tmp_path / "bad.yaml"
    bad.write_text(SPARSE.replace("    mlp.router", f"    {row}\n    mlp.router"))
    with pytest.raises(BuilderError, match=r"bad\.yaml") as refused:
        hf_bridge.from_hf(sparse, family=bad)
    assert (refused.value.code, refused.value.exit_code) == ("family-row", 2)
    assert said in refused.value.message


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc tells a peak")
def test_reading_takes_no_more_than_the_model_and_a_shard():
    """``python -m tests.streaming`` shows it on two gigabytes."""
    for _, found in measured(0.4):
        assert found["taken"] < found["model"] + found["shard"]
