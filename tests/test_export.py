"""From our model to a folder that the library loads, and the reasons where it cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import hf_bridge
from builder import build, load_recipe
from builder.errors import BuilderError, RecipeError
from builder.index import load_index
from hf_bridge.errors import ConfigError, NotExportable
from hf_bridge.exporting import Fit, find_fit, fit_family
from hf_bridge.family_files import family_names, load_family
from hf_bridge.importing import import_config
from tests.family_configs import configs
from tests.hf_folders import (
    DATA,
    FITTING,
    GPT,
    GPT2,
    LLAMA,
    MISTRAL,
    ROOT,
    built,
    needs_data,
    read,
)

INDEX = load_index()


def load_native(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def graph_of(config):
    """What a config means, or None where blocks or the family refuse its values."""
    try:
        return load_recipe(import_config(config).text).graph
    except (RecipeError, ConfigError):
        return None


@pytest.mark.slow
@pytest.mark.parametrize("name", family_names())
@given(data=st.data())
@settings(max_examples=settings().max_examples // 4)
def test_importing_what_was_exported_gives_the_graph_back(name, data):
    family, graph = load_family(name), graph_of(data.draw(configs(name)))
    assume(graph is not None)
    fit = fit_family(graph, family, INDEX)
    assert isinstance(fit, Fit), fit
    assert load_recipe(import_config(fit.config).text).graph == graph


def test_sizes_alone_do_not_make_a_recipe_of_another_family():
    """A window that is switched off weighs more than widths that happen to be a class's own."""
    graph = load_recipe(ROOT / "recipes" / "published" / "llama3-8b.yaml").graph
    assert find_fit(graph).family.architecture == "LlamaForCausalLM"


@pytest.mark.parametrize("name", FITTING)
def test_a_recipe_finds_the_family_that_it_is_of(name):
    assert find_fit(load_recipe(FITTING[name]).graph).family.model_type == name


@needs_data
@pytest.mark.parametrize("name", ["stories260K", "slm4096"])
def test_a_trained_model_goes_there_and_back_unchanged(name, tmp_path):
    source = DATA / "models" / name / "hf"
    model, _ = hf_bridge.from_hf(source)
    hf_bridge.to_hf(model, tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (source, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)


@pytest.mark.parametrize("text", FITTING.values(), ids=FITTING)
def test_the_library_continues_as_we_do(text, tmp_path):
    model = built(text)
    hf_bridge.to_hf(model, tmp_path / "out")
    native = load_native(tmp_path / "out")
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    new = 32 - ids.shape[1]  # as far as the context goes
    ours = model.generate(ids, max_new_tokens=new, temperature=0.0)
    theirs = native.generate(ids, max_new_tokens=new, do_sample=False)
    assert ours.tolist() == theirs.tolist()
    with torch.no_grad():
        # fp32, the same sums in another order
        torch.testing.assert_close(model(ours), native(ours).logits, rtol=0, atol=1e-5)


def test_a_class_s_own_special_tokens_do_not_end_an_exported_model(tmp_path):
    hf_bridge.to_hf(built(LLAMA), tmp_path / "out")
    assert load_native(tmp_path / "out").generation_config.eos_token_id is None


def test_bfloat16_weights_stay_bfloat16(tmp_path):
    hf_bridge.to_hf(built(LLAMA, dtype=torch.bfloat16), tmp_path / "out")
    assert read(tmp_path / "out/config.json")["dtype"] == "bfloat16"
    assert load_native(tmp_path / "out").dtype == torch.bfloat16


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(BuilderError) as refused:
        hf_bridge.to_hf(built(LLAMA), tmp_path)
    assert (refused.value.code, refused.value.exit_code) == ("already-there", 2)


def test_a_model_in_training_is_still_in_training_after_its_export(tmp_path):
    model = built(GPT).train()
    hf_bridge.to_hf(model, tmp_path / "out")
    assert model.training


def test_export_is_not_done_if_the_library_s_logits_differ(tmp_path, monkeypatch):
    from hf_bridge import exporting

    tensors = exporting.native_tensors

    def spoilt(rows, ours):
        return ((name, tensor + 0.01) for name, tensor in tensors(rows, ours))

    monkeypatch.setattr(exporting, "native_tensors", spoilt)
    with pytest.raises(BuilderError, match="logits differ") as refused:
        hf_bridge.to_hf(built(LLAMA), tmp_path / "out")
    assert (refused.value.code, refused.value.exit_code) == ("logits-differ", 70)
    assert list(tmp_path.iterdir()) == []


ALIBI = LLAMA.replace("position: rope", "position: alibi")


@pytest.mark.parametrize(
    ("text", "family", "told"),
    [
        (
            LLAMA.replace("rmsnorm, glu]", "rmsnorm, glu, rmsnorm]"),
            None,
            "rmsnorm, where the family has nothing more",
        ),
        (ALIBI, None, "attention.position: alibi, where the family has rope"),
        (MISTRAL, "llama", "attention.mask: sliding_window, where the family has causal"),
        (
            LLAMA.replace("rope", "rope, bias: true"),
            "llama",
            "out_bias: false, where the family has true elsewhere",
        ),
        (LLAMA.replace("  - rmsnorm\n", "  - rmsnorm: {eps: 0.1}\n"), "llama", "rmsnorm.eps: 0.1"),
        (LLAMA.replace("glu]", "{glu: {act: xielu}}]"), "llama", "act: xielu"),
        (
            LLAMA.replace("glu]", "glu, {dropout: 0.0}]"),
            "llama",
            "dropout, where the family has nothing more",
        ),
        (LLAMA.replace("- lm_head", "- lm_head\n  - softcap: 30.0"), "llama", "softcap"),
        (LLAMA.replace("block: decoder}", "block: decoder, share: true}"), "llama", "weights"),
        (
            GPT2.replace("out_bias: true", "out_bias: true, scale: 0.3"),
            "gpt2",
            "attention.scale: 0.3",
        ),
        (GPT2.replace("heads: 4", "heads: 4, head_dim: 6"), "gpt2", "attention.head_dim: 6"),
        (GPT2.replace("heads: 4", "heads: 4, kv_heads: 2"), "gpt2", "attention.kv_heads: 2"),
        (GPT.replace("heads: 4", "heads: 4, ff: 40"), "openai-gpt", "ff: 40"),
        (GPT.replace("}, {dropout: 0.2}]", "}, {dropout: 0.0}]", 1), "openai-gpt", "dropout"),
    ],
)
def test_what_does_not_fit_is_told_by_its_first_difference(text, family, told):
    with pytest.raises(NotExportable) as refused:
        find_fit(load_recipe(text).graph, family)
    assert refused.value.exit_code == 2
    assert told in refused.value.message


def test_a_difference_is_told_with_its_place_in_the_recipe():
    with pytest.raises(
        NotExportable, match=r"<text>:7:50: error.*LlamaForCausalLM but for layer 0"
    ):
        find_fit(load_recipe(ALIBI).graph)


def test_a_recipe_of_no_family_is_exported_as_our_own_class(tmp_path):
    model = built(ALIBI)
    assert hf_bridge.to_hf(model, tmp_path / "out") == "RecipeForCausalLM"
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(load_native(tmp_path / "out")(ids).logits, model(ids))


def test_a_family_asked_for_is_not_replaced_by_another(tmp_path):
    with pytest.raises(NotExportable):
        hf_bridge.to_hf(built(ALIBI), tmp_path / "out", family="llama")
    assert not (tmp_path / "out").exists()


def builder(*arguments):
    command = [sys.executable, "-m", "builder", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
@needs_data
def test_a_folder_becomes_a_run_and_the_run_a_folder(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = DATA / "models/stories260K/hf"
    imported = builder("import", source, tmp_path / "run")
    assert imported.returncode == 0, imported.stderr
    assert "repeat: 5" in imported.stdout
    exported = builder("export", tmp_path / "run", tmp_path / "out")
    assert exported.returncode == 0, exported.stderr
    assert "LlamaForCausalLM" in exported.stdout
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")(
        "Once upon a time", return_tensors="pt"
    ).input_ids
    assert ids.tolist() == [[1, 403, 407, 261, 378]]
    models = [AutoModelForCausalLM.from_pretrained(f) for f in (source, tmp_path / "out")]
    with torch.no_grad():
        assert torch.equal(*(model(ids).logits for model in models))


@pytest.mark.slow
@needs_data
def test_a_wrong_folder_ends_with_one_line_and_its_exit_code(tmp_path):
    done = builder("import", tmp_path / "nowhere", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith("error[cannot-read]: there is no folder")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@needs_data
def test_a_family_is_checked_against_a_folder():
    good = builder("family", "check", "llama", DATA / "models/stories260K/hf")
    assert (good.returncode, good.stdout.count("ok ")) == (0, 8), good.stdout + good.stderr
    bad = builder("family", "check", "gpt2", DATA / "models/stories260K/hf")
    assert bad.returncode == 1
    assert "NO  config-required" in bad.stdout


def test_what_reads_across_depth_is_no_native_class_and_the_reason_says_so(tmp_path):
    """A family's attention has no word of it, and none may be dropped in silence."""
    first = [
        {"residual": ["rmsnorm", {"attention": {"position": "rope"}, "as": "first"}]},
        {"residual": ["rmsnorm", "glu"]},
    ]
    other = [
        {"residual": ["rmsnorm", {"attention": {"position": "rope", "value_from": "first"}}]},
        {"residual": ["rmsnorm", "glu"]},
    ]
    page = {
        "recipe": 1,
        "dims": {"dim": 8, "heads": 2, "ff": 6, "vocab": 11, "context": 16},
        "blocks": {"first": first, "other": other},
        "model": [
            "token_embedding",
            {"repeat": 1, "pattern": ["first", "other"]},
            "rmsnorm",
            "lm_head",
        ],
    }
    model = build(load_recipe(page))
    with pytest.raises(NotExportable, match="the values of another"):
        hf_bridge.to_hf(model, tmp_path / "native", family="llama")
    assert hf_bridge.to_hf(model, tmp_path / "own") == "RecipeForCausalLM"
