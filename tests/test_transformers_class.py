"""Our model under the library's interface: generate, pipelines, Trainer, save and load."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import hf_bridge
from builder import build, load_recipe
from tests.hf_folders import DATA, FITTING, LLAMA, MISTRAL, ROOT, built, needs_data

ALIBI = LLAMA.replace("position: rope", "position: alibi")
HEADS = {**FITTING, "alibi": ALIBI}
IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
PADDED = torch.tensor([[0, 0, 0, 1, 5], [9, 2, 6, 5, 3]])
MASK = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])
GREEDY = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(scope="module", params=HEADS)
def model(request):
    return built(HEADS[request.param])


def test_greedy_generation_is_ours_with_a_cache_and_without(model):
    ours = model.generate(IDS, max_new_tokens=12, temperature=0.0)
    wrapped = hf_bridge.as_transformers(model)
    assert torch.equal(wrapped.generate(IDS, use_cache=True, **GREEDY), ours)
    assert torch.equal(wrapped.generate(IDS, use_cache=False, **GREEDY), ours)


def test_padding_on_the_left_changes_no_continuation(model):
    wrapped = hf_bridge.as_transformers(model)
    batch = wrapped.generate(PADDED, attention_mask=MASK, **GREEDY)
    alone = wrapped.generate(PADDED[:1, 3:], **GREEDY)
    assert batch[0, 5:].tolist() == alone[0, 2:].tolist()


@pytest.mark.parametrize(
    "how", [{"do_sample": True, "top_k": 5}, {"num_beams": 3, "do_sample": False}]
)
def test_sampling_and_beams_choose_as_the_native_class_does(how, tmp_path):
    from transformers import AutoModelForCausalLM

    model = built(MISTRAL)  # a window of 5: beams reorder what it keeps
    hf_bridge.to_hf(model, tmp_path / "out")
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    chosen = []
    for one in (native, hf_bridge.as_transformers(model)):
        torch.manual_seed(0)
        chosen.append(one.generate(IDS, max_new_tokens=10, pad_token_id=0, **how))
    assert torch.equal(*chosen)


def test_generation_goes_on_from_a_returned_cache(model):
    wrapped = hf_bridge.as_transformers(model)
    out = wrapped.generate(IDS, return_dict_in_generate=True, **GREEDY | {"max_new_tokens": 6})
    again = wrapped.generate(out.sequences, cache=out.cache, **GREEDY | {"max_new_tokens": 6})
    assert torch.equal(again, wrapped.generate(IDS, **GREEDY))


def test_hidden_states_are_those_of_the_native_class(tmp_path):
    from transformers import AutoModelForCausalLM

    model = built(MISTRAL)
    hf_bridge.to_hf(model, tmp_path / "out")
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    asked = {"output_hidden_states": True}
    theirs = native(IDS, **asked).hidden_states
    ours = hf_bridge.as_transformers(model)(IDS, labels=IDS, **asked).hidden_states
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_hidden_states_of_a_new_token_are_those_it_has_in_the_text(model):
    wrapped = hf_bridge.as_transformers(model)
    whole = wrapped(IDS, output_hidden_states=True).hidden_states
    read = wrapped(IDS[:, :3], use_cache=True)
    assert read.hidden_states is None
    read.cache.crop(1)  # a window reads again what it had let go
    new = wrapped(IDS[:, 2:], cache=read.cache, output_hidden_states=True).hidden_states
    torch.testing.assert_close(new, tuple(x[:, 2:] for x in whole), rtol=0, atol=1e-5)


def test_the_wrapped_model_shares_its_weights(model):
    wrapped = hf_bridge.as_transformers(model)
    ours = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in wrapped.parameters()} == ours


def test_saved_and_loaded_is_the_same_model(model, tmp_path):
    from transformers import AutoModelForCausalLM

    hf_bridge.as_transformers(model).save_pretrained(tmp_path)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, model(IDS))
    assert again.model.recipe.graph == model.recipe.graph
    tied = (
        dict(again.named_parameters()).keys()
        == dict(hf_bridge.as_transformers(model).named_parameters()).keys()
    )
    assert tied


@pytest.mark.slow
def test_a_saved_model_loads_in_a_process_that_only_imports_the_bridge(tmp_path):
    hf_bridge.as_transformers(built(ALIBI)).save_pretrained(tmp_path)
    script = (
        "import hf_bridge, sys; assert 'transformers' not in sys.modules\n"
        "from transformers import AutoModelForCausalLM\n"
        f"print(type(AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "RecipeForCausalLM", done.stderr


def test_the_loss_is_the_model_s_own_over_shifted_labels(model):
    shifted = torch.cat([IDS[:, 1:], torch.full((2, 1), -100)], 1)
    loss = hf_bridge.as_transformers(model)(IDS, labels=IDS).loss
    torch.testing.assert_close(loss, model.loss(IDS, shifted), rtol=0, atol=1e-6)


def test_the_losses_of_blocks_count():
    model = built(LLAMA.replace("rmsnorm, glu]", "rmsnorm, {moe: {experts: 4, expert: glu}}]"))
    shifted = torch.cat([IDS[:, 1:], torch.full((2, 1), -100)], 1)
    loss = hf_bridge.as_transformers(model)(IDS, labels=IDS).loss
    torch.testing.assert_close(loss, model.loss(IDS, shifted), rtol=0, atol=1e-6)


@needs_data
def test_a_pipeline_writes_text():
    from transformers import AutoTokenizer, pipeline

    folder = DATA / "models/stories260K/hf"
    model, _ = hf_bridge.from_hf(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write = pipeline("text-generation", model=hf_bridge.as_transformers(model), tokenizer=tokenizer)
    text = write("Once upon a time", max_new_tokens=10, do_sample=False)[0]["generated_text"]
    assert text == "Once upon a time, there was a little girl named Lily"


def test_trainer_lowers_the_loss_and_saves(tmp_path):
    pytest.importorskip("accelerate", reason="transformers' Trainer asks for accelerate")
    from transformers import Trainer, TrainingArguments

    model = hf_bridge.as_transformers(built(FITTING["gpt2"]).train())
    rows = [{"input_ids": torch.arange(12), "labels": torch.arange(12)}] * 8
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=8,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert float(losses[-1]) < float(losses[0])
    assert (tmp_path / "checkpoint-8" / "model.safetensors").is_file()


def test_what_is_not_kept_is_refused(model):
    wrapped = hf_bridge.as_transformers(model)
    with pytest.raises(ValueError, match="attentions are not kept"):
        wrapped(IDS, output_attentions=True)
    with pytest.raises(ValueError, match="attention mask of shape"):
        wrapped(IDS, attention_mask=torch.ones(2, 1, 5, 5))
    with pytest.raises(ValueError, match="cache_implementation='static'"):
        wrapped.generate(IDS, cache_implementation="static", **GREEDY)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["delta_hybrid", "kv_sharing", "hyper_connections", "unet"])
def test_wired_and_hybrid_models_generate_there_as_here(name):
    """A borrowed cache, a memory of one size, streams and skips pass through their `generate`."""
    model = build(load_recipe(ROOT / f"recipes/gallery/{name}.yaml")).eval()
    ids = torch.randint(2048, (2, 7), generator=torch.Generator().manual_seed(1))
    ours = model.generate(ids, max_new_tokens=12, temperature=0)
    theirs = hf_bridge.as_transformers(model).generate(ids, max_new_tokens=12, do_sample=False)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_exported_model_generates_with_the_library_s_static_cache(name, tmp_path):
    """Ours has a cache of its own, and refuses another: ``test_what_is_not_kept_is_refused``."""
    from transformers import AutoModelForCausalLM

    model = built(FITTING[name])
    hf_bridge.to_hf(model, tmp_path / "out")
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    ours = model.generate(ids, max_new_tokens=12, temperature=0.0)
    theirs = native.generate(
        ids, max_new_tokens=12, do_sample=False, cache_implementation="static", disable_compile=True
    )
    assert ours.tolist() == theirs.tolist()
