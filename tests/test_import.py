"""From a foreign folder to our recipe and weights."""

from __future__ import annotations

import json

import pytest
import torch

import hf_bridge
from builder.errors import BuilderError
from hf_bridge.errors import ConfigError
from hf_bridge.family_files import load_family
from hf_bridge.importing import from_hf, import_config
from hf_bridge.normalise import normalise
from tests.hf_folders import (
    DATA,
    LLAMA,
    built,
    needs_data,
    read,
    written,
)

TRAINED = ("stories260K", "slm4096")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    out = tmp_path_factory.mktemp("llama") / "folder"
    hf_bridge.to_hf(built(LLAMA), out)
    return out


@needs_data
@pytest.mark.parametrize("name", TRAINED)
def test_imported_models_continue_as_the_reference_says(name):
    model, _ = hf_bridge.from_hf(DATA / "models" / name / "hf")
    for case in read(DATA / "models" / name / "REFERENCE.json")["greedy"]:
        prompt = torch.tensor([case["prompt_ids"]])
        out = model.generate(prompt, max_new_tokens=case["new_tokens"], temperature=0.0)
        assert out[0, prompt.shape[1] :].tolist() == case["new_ids"]


@needs_data
@pytest.mark.parametrize("name", TRAINED)
def test_imported_models_give_the_logits_of_the_reference(name):
    model, _ = hf_bridge.from_hf(DATA / "models" / name / "hf", dtype=torch.float64)
    reference = read(DATA / "models" / name / "REFERENCE.json")["last_prompt_logits"]
    logits = model(torch.tensor([reference["ids"]]))[0, -1]
    # the reference is rounded to five places
    torch.testing.assert_close(
        logits, torch.tensor(reference["values"]).double(), rtol=0, atol=1e-5
    )


@needs_data
def test_a_prompt_gets_the_start_token_of_the_imported_tokenizer():
    from builder.tokenizers import Tokenizer

    tokenizer = Tokenizer.load(DATA / "models/stories260K/hf/tokenizer.json")
    for case in read(DATA / "models/stories260K/REFERENCE.json")["tokenizer_cases"]:
        assert tokenizer.prompt(case["text"]) == case["ids"]


def test_an_imported_page_is_as_short_as_one_written_by_hand(llama):
    _, recipe = hf_bridge.from_hf(llama)
    assert recipe.text.splitlines()[1:] == [
        "recipe: 1",
        "name: folder",
        "dims: {dim: 16, heads: 4, kv_heads: 2, ff: 24, vocab: 31, context: 32}",
        "blocks:",
        "  decoder:",
        "    - residual: [rmsnorm, {attention: {position: rope}}]",
        "    - residual: [rmsnorm, glu]",
        "model:",
        "  - token_embedding",
        "  - {repeat: 3, block: decoder}",
        "  - rmsnorm",
        "  - lm_head",
    ]


def test_every_layer_keeps_an_expression_of_its_number():
    config = {"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}
    assert "scale: 1 / sqrt(dim / heads) / (layer + 1)" in import_config(config).text


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 5e5},
        {"rope_scaling": {"type": "default"}, "rope_theta": 5e5},
        {"rope_scaling": {"rope_theta": 5e5}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_scaling": None, "rope_theta": 5e5},
    ],
)
def test_older_spellings_of_the_rotary_base_are_read(config):
    assert "{rope: {theta: 500000}}" in import_config({"model_type": "llama"} | config).text


def test_null_is_a_value_only_where_a_case_lists_it():
    told = {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": None}
    fields = normalise(load_family("mistral"), told)
    assert fields["sliding_window"] is None
    assert fields["num_key_value_heads"] == fields["num_attention_heads"] == 32
    absent = normalise(load_family("mistral"), {"model_type": "mistral"})
    assert (absent["sliding_window"], absent["num_key_value_heads"]) == (4096, 8)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("config-unknown", {"hiden_size": 64}),
        ("config-unknown", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
        ("config-unknown", {"rope_parameters": {"rope_type": "default", "fctor": 2.0}}),
        ("config-unknown", {"quantization_config": {"bits": 4}}),
        ("config-case", {"rope_scaling": {"type": "yern", "factor": 4.0}}),
        ("config-required", {"architectures": ["EvilForCausalLM"]}),
        ("config-required", {"model_type": "nothing-known"}),
        ("config-contradiction", {"rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0}}),
        ("config-case", {"hidden_act": "mish"}),
        ("config-default", {"num_attention_heads": 0}),
    ],
)
def test_what_our_blocks_cannot_follow_is_refused(code, change):
    with pytest.raises(BuilderError) as refused:
        import_config({"model_type": "llama"} | change)
    assert (refused.value.code, refused.value.exit_code) == (code, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": -1},
        {"num_hidden_layers": "12"},
        {"hidden_size": 63.5},
        {"num_key_value_heads": 5},
        {"rms_norm_eps": "small"},
        {"tie_word_embeddings": 1},
        {"vocab_size": [1]},
        {"head_dim": 7},
    ],
)
def test_a_value_that_no_model_can_have_is_the_user_s_error(change):
    from builder import load_recipe

    small = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}
    with pytest.raises(BuilderError) as refused:
        load_recipe(import_config(small | change).text)
    assert refused.value.exit_code == 2


def test_an_unknown_field_names_the_nearest_and_how_to_do_without(tmp_path, llama):
    config = read(llama / "config.json") | {"hiden_act": "silu"}
    with pytest.raises(ConfigError, match="hiden_act") as refused:
        import_config(config)
    assert refused.value.help == "did you mean hidden_act? to read the rest: --drop hiden_act"
    assert (
        import_config(config, drop=["hiden_act"]).text
        == import_config(read(llama / "config.json")).text
    )


def test_dtype_may_change_on_the_way(llama):
    model, _ = hf_bridge.from_hf(llama, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "damaged-json"),
        ("[]", "damaged-json"),
        ('{"a": NaN}', "damaged-json"),
        ("[" * 100_000, "damaged-json"),
        ("\udcff", "damaged-json"),
    ],
)
def test_a_damaged_config_is_told_as_such(tmp_path, text, code):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BuilderError) as refused:
        hf_bridge.from_hf(tmp_path)
    assert (refused.value.code, refused.value.exit_code) == (code, 5)


def test_a_folder_that_is_not_there_is_never_downloaded(tmp_path):
    with pytest.raises(BuilderError) as refused:
        hf_bridge.from_hf(tmp_path / "owner" / "name")
    assert (refused.value.code, refused.value.exit_code) == ("cannot-read", 2)


def test_pickled_weights_are_named_and_not_read(tmp_path, llama):
    folder = written(tmp_path / "folder", read(llama / "config.json"))
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BuilderError, match=r"neither model\.safetensors") as refused:
        from_hf(folder)
    assert "pytorch_model.bin may run code" in refused.value.help


def test_an_index_may_not_name_files_outside_its_folder(tmp_path, llama):
    for name in ("../model.safetensors", "/etc/passwd", "a/b.safetensors", ".."):
        folder = written(tmp_path / "folder", read(llama / "config.json"))
        index = {"weight_map": {"lm_head.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(BuilderError) as refused:
            from_hf(folder)
        assert (refused.value.code, refused.value.exit_code) == ("path-outside", 5)
