"""Weights in one file: llama2.c's, and state dicts of torch such as nanoGPT's."""

from __future__ import annotations

import json
import math
import os
import zipfile

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import hf_bridge
from builder.errors import BuilderError
from builder.training.runs import open_run
from hf_bridge.checkpoints import read_checkpoint
from hf_bridge.folder import WEIGHTS, headers
from tests.commands import python
from tests.hf_folders import DATA, LLAMA, built, needs_data, read

STORIES = DATA / "models" / "stories260K"
ARGS = {"n_layer": 2, "n_head": 4, "n_embd": 16, "block_size": 12, "vocab_size": 11, "dropout": 0.0}


@needs_data
def test_llama2_c_s_weights_give_the_logits_of_the_converted_ones():
    ours, _ = hf_bridge.from_hf(STORIES / "stories260K.bin", family="llama2c", dtype=torch.float64)
    theirs, _ = hf_bridge.from_hf(STORIES / "hf", dtype=torch.float64)
    ids = torch.randint(512, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # the same numbers, rows of queries and keys in another order
        torch.testing.assert_close(ours(ids), theirs(ids), rtol=0, atol=1e-9)


@needs_data
def test_llama2_c_s_weights_continue_as_the_reference_says():
    model, _ = hf_bridge.from_hf(STORIES / "stories260K.bin", family="llama2c")
    for case in read(STORIES / "REFERENCE.json")["greedy"]:
        prompt = torch.tensor([case["prompt_ids"]])
        out = model.generate(prompt, max_new_tokens=case["new_tokens"], temperature=0.0)
        assert out[0, prompt.shape[1] :].tolist() == case["new_ids"]


def nanogpt(*, bias: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict under nanoGPT's names, of which two are tied."""
    generator = torch.Generator().manual_seed(seed)
    width = ARGS["n_embd"]

    def drawn(*shape):
        return 0.3 * torch.randn(shape, generator=generator)

    state = {"wte.weight": drawn(ARGS["vocab_size"], width)}
    state["wpe.weight"] = drawn(ARGS["block_size"], width)
    norms = ["ln_f", *(f"h.{i}.ln_{n}" for i in range(ARGS["n_layer"]) for n in (1, 2))]
    state |= {f"{name}.weight": 1 + drawn(width) for name in norms}
    shapes = {
        "attn.c_attn": (3, 1),
        "attn.c_proj": (1, 1),
        "mlp.c_fc": (4, 1),
        "mlp.c_proj": (1, 4),
    }
    linear = {f"h.{i}.{n}": s for i in range(ARGS["n_layer"]) for n, s in shapes.items()}
    state |= {f"{n}.weight": drawn(out * width, into * width) for n, (out, into) in linear.items()}
    if bias:
        state |= {f"{name}.bias": drawn(width) for name in norms}
        state |= {f"{name}.bias": drawn(out * width) for name, (out, _) in linear.items()}
    state = {f"transformer.{name}": tensor for name, tensor in state.items()}
    return state | {"lm_head.weight": state["transformer.wte.weight"]}


def by_hand(state: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """nanoGPT's forward, in float64, one head at a time."""
    w = {name.removeprefix("transformer."): tensor.double() for name, tensor in state.items()}
    width, heads = ARGS["n_embd"], ARGS["n_head"]

    def norm(x, name):
        return F.layer_norm(x, (width,), w[f"{name}.weight"], w.get(f"{name}.bias"))

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    x = w["wte.weight"][ids] + w["wpe.weight"][: ids.shape[1]]
    for i in range(ARGS["n_layer"]):
        q, k, v = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(width, -1)
        size = width // heads
        out = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[..., part] @ k[..., part].mT / math.sqrt(size)
            future = torch.ones_like(scores[0]).triu(1).bool()
            out.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v[..., part])
        x = x + linear(torch.cat(out, -1), f"h.{i}.attn.c_proj")
        inner = F.gelu(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"))
        x = x + linear(inner, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ w["lm_head.weight"].T


@pytest.fixture
def saved(tmp_path):
    """Writes a checkpoint as nanoGPT's train.py does, and gives its path."""

    def save(state, **more):
        path = tmp_path / "ckpt.pt"
        torch.save({"model": state, "iter_num": 3, **more}, path)
        return path

    return save


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
def test_a_checkpoint_of_nanogpt_gives_nanogpt_s_logits(saved, bias, prefix):
    state = nanogpt(bias=bias)
    path = saved({prefix + k: v for k, v in state.items()}, model_args=ARGS | {"bias": bias})
    model, recipe = hf_bridge.from_hf(path, family="nanogpt", dtype=torch.float64)
    ids = torch.randint(ARGS["vocab_size"], (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), by_hand(state, ids), rtol=0, atol=1e-9)
    assert recipe.name == "ckpt"


def test_a_checkpoint_of_nanogpt_with_biases_becomes_gpt2(saved, tmp_path):
    path = saved(nanogpt(bias=True), model_args=ARGS | {"bias": True})
    model, _ = hf_bridge.from_hf(path, family="nanogpt")
    assert hf_bridge.to_hf(model, tmp_path / "out") == "GPT2LMHeadModel"


def test_a_bare_state_dict_is_read_with_a_config_of_its_own(tmp_path):
    torch.save(nanogpt(bias=False), tmp_path / "weights.pt")
    with pytest.raises(BuilderError) as refused:
        hf_bridge.from_hf(tmp_path / "weights.pt", family="nanogpt")
    assert (refused.value.code, refused.value.exit_code) == ("checkpoint-config", 2)
    (tmp_path / "fields.json").write_text(json.dumps(ARGS | {"bias": False}))
    model, _ = hf_bridge.from_hf(
        tmp_path / "weights.pt", family="nanogpt", config=tmp_path / "fields.json"
    )
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


LAST_NORM = "transformer.ln_f.weight"
BIG = torch.ones(50_000)  # much of a file, so that a hundred names for it are no file's


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda state: state | {"transformer.h.0.extra": torch.ones(2)}, "weights-unused"),
        (lambda state: {k: v for k, v in state.items() if "c_fc" not in k}, "weights-missing"),
        (lambda state: state | {LAST_NORM: torch.ones(3)}, "weights-shape"),
        (lambda state: state | {LAST_NORM: torch.full((16,), math.nan)}, "weights-numbers"),
        (lambda state: state | {"lm_head.weight": torch.zeros(11, 16)}, "tied-differs"),
        (lambda state: state | {LAST_NORM: torch.ones(1).expand(10**12)}, "damaged-weights"),
        (lambda state: state | dict.fromkeys(map(str, range(99)), BIG), "damaged-weights"),
        (lambda state: state | {LAST_NORM: torch.ones(16).to_sparse()}, "weights-dtype"),
        (lambda state: state | {LAST_NORM: torch.ones(16, device="meta")}, "weights-dtype"),
        (lambda state: state | {LAST_NORM: torch.ones(16, dtype=torch.complex64)}, "weights-dtype"),
        (lambda state: state | {LAST_NORM: Evil()}, "weights-refused"),
        (lambda state: state | {"step": 3}, "weights-missing"),
        (lambda state: [], "weights-missing"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_what_it_should_be_is_refused(saved, spoil, code, monkeypatch):
    monkeypatch.chdir(saved({}).parent)
    path = saved(spoil(nanogpt(bias=True)), model_args=ARGS)
    with pytest.raises(BuilderError) as refused:
        hf_bridge.from_hf(path, family="nanogpt")
    assert (refused.value.code, refused.value.exit_code) == (code, 5)
    assert str(path) in refused.value.message
    assert not (path.parent / "ran").exists()


def doubling():
    """A few bytes that stand for a million million ones."""
    value = 1
    for _ in range(40):
        value = [value, value]
    return value


@pytest.mark.parametrize("value", [torch.float32, torch.ones(2), {1, 2}, math.nan, doubling()])
def test_arguments_that_no_config_could_hold_are_told_and_given_otherwise(saved, tmp_path, value):
    path = saved(nanogpt(bias=False), model_args=ARGS | {"bias": False, "odd": value})
    with pytest.raises(BuilderError, match="tells what no JSON holds") as refused:
        hf_bridge.from_hf(path, family="nanogpt")
    assert (refused.value.code, refused.value.exit_code) == ("checkpoint-config", 2)
    (tmp_path / "fields.json").write_text(json.dumps(ARGS | {"bias": False}))
    hf_bridge.from_hf(path, family="nanogpt", config=tmp_path / "fields.json")


def test_a_compressed_checkpoint_is_not_taken_for_numbers(saved, tmp_path):
    """torch maps such a file into memory as it lies, and takes what it finds for numbers."""
    path = saved(nanogpt(bias=True), model_args=ARGS)
    with zipfile.ZipFile(path) as plain:
        entries = {entry.filename: plain.read(entry) for entry in plain.infolist()}
    with zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small:
        for name, content in entries.items():
            small.writestr(name, content)
    with pytest.raises(BuilderError, match="is compressed") as refused:
        hf_bridge.from_hf(tmp_path / "small.pt", family="nanogpt")
    assert (refused.value.code, refused.value.exit_code) == ("damaged-weights", 5)


def test_weights_of_a_pickled_folder_are_read_with_its_config(tmp_path):
    """As a folder they are refused; as a file, no code of theirs runs."""
    model = built(LLAMA)
    hf_bridge.to_hf(model, folder := tmp_path / "out")
    torch.save(load_file(folder / "model.safetensors"), path := folder / "pytorch_model.bin")
    again, _ = hf_bridge.from_hf(path, family="llama", config=folder / "config.json")
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_the_command_reads_a_file(saved, tmp_path):
    path = saved(nanogpt(bias=False), model_args=ARGS)
    (tmp_path / "fields.json").write_text(json.dumps(ARGS | {"bias": False}))
    told = ["--family", "nanogpt", "--config", "fields.json", "--dtype", "bf16"]
    done = python(tmp_path, "-m", "builder", "import", str(path), "run", *told)
    assert "name: ckpt" in done.stdout and done.stdout.rstrip().endswith("parameters in run")
    (held,) = {one.dtype for one in headers(open_run(tmp_path / "run").latest() / WEIGHTS).values()}
    assert held == "BF16"
    python(tmp_path, "-m", "builder", "export", "run", "out")
    assert {one.dtype for one in headers(tmp_path / "out" / WEIGHTS).values()} == {"BF16"}


def test_a_file_that_is_no_checkpoint_is_told_as_such(tmp_path):
    for name, content in (("a.pt", b""), ("b.pt", b"not one"), ("c.pt", b"PK\x03\x04broken")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BuilderError) as refused:
            read_checkpoint(tmp_path / name)
        assert refused.value.exit_code == 5


def test_a_file_needs_a_family(saved):
    with pytest.raises(BuilderError, match="does not say which names") as refused:
        hf_bridge.from_hf(saved({}))
    assert (refused.value.code, refused.value.exit_code) == ("checkpoint-family", 2)


@needs_data
def test_a_truncated_file_of_llama2_c_is_not_read_as_one(tmp_path):
    (tmp_path / "cut.bin").write_bytes((STORIES / "stories260K.bin").read_bytes()[:-4])
    with pytest.raises(BuilderError) as refused:
        read_checkpoint(tmp_path / "cut.bin")
    assert refused.value.exit_code == 5
