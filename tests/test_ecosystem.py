"""What the world around the library does with our models, each by the real thing.

The extras of pyproject.toml bring what is not there: what is missing is skipped, and said.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hf_bridge
from builder.tokenizers import Bpe, Bytes
from tests.hf_folders import DATA, GPT2, LLAMA, ROOT, built, needs_data, read

REFERENCE = DATA / "models/stories260K/REFERENCE.json"
ALIBI = LLAMA.replace("position: rope", "position: alibi")  # of no native class
IDS = torch.arange(12)[None] % 31


@pytest.fixture
def wrapped():
    return hf_bridge.as_transformers(built(ALIBI))


def logits_of(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids).logits


# Trainer


class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, number):
        ids = (torch.arange(8) * (number + 1)) % 31
        return {"input_ids": ids, "labels": ids}


def trained(model, folder, steps, resume=False):
    from transformers import Trainer, TrainingArguments

    told = TrainingArguments(
        str(folder), max_steps=steps, save_steps=3, per_device_train_batch_size=4, seed=1,
        learning_rate=1e-2, report_to=[], disable_tqdm=True, logging_strategy="no", use_cpu=True,
        lr_scheduler_type="constant",
    )  # fmt: skip
    Trainer(model, told, train_dataset=Texts()).train(resume_from_checkpoint=resume)
    return model


@pytest.mark.slow
def test_trainer_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(wrapped, tmp_path):
    pytest.importorskip("accelerate", reason="Trainer asks for accelerate")
    other = copy.deepcopy(wrapped)
    whole = trained(wrapped, tmp_path / "whole", 6)
    trained(other, tmp_path / "parts", 3)
    resumed = trained(hf_bridge.as_transformers(built(ALIBI, seed=9)), tmp_path / "parts", 6, True)
    assert torch.equal(logits_of(whole.eval()), logits_of(resumed.eval()))


# PEFT


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # which peft asks
def test_lora_trains_is_saved_and_merges(wrapped, tmp_path):
    peft = pytest.importorskip("peft", reason="the extra [peft] brings it")
    names = ["attention.q", "attention.v", "glu.down"]
    told = peft.LoraConfig(
        r=2, target_modules=names, task_type="CAUSAL_LM", init_lora_weights=False
    )
    before = logits_of(wrapped)
    model = peft.get_peft_model(copy.deepcopy(wrapped), told)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(trainable) == 2 * len(names) * 3  # two matrices for each, in three layers
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in trainable)
    torch.optim.SGD(trainable, 0.1).step()
    model.eval()
    after = logits_of(model)
    assert not torch.allclose(before, after)
    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(wrapped), tmp_path / "adapter").eval()
    assert torch.equal(logits_of(loaded), after)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(logits_of(merged), after, rtol=0, atol=1e-5)
    assert type(merged) is type(wrapped)


# ONNX


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's exporter, on itself
@pytest.mark.parametrize("text", [LLAMA, ALIBI], ids=["rope", "alibi"])
def test_onnx_computes_our_logits_at_any_length(text, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [onnx] brings it")
    runtime = pytest.importorskip("onnxruntime", reason="the extra [onnx] brings it")
    model = hf_bridge.as_transformers(built(text))
    path = tmp_path / "model.onnx"
    shapes = {
        "input_ids": {
            0: torch.export.Dim("rows", max=8),
            1: torch.export.Dim("length", min=2, max=32),
        }
    }
    program = torch.onnx.export(
        Logits(model),
        (),
        kwargs={"input_ids": IDS.repeat(2, 1)},
        dynamo=True,
        dynamic_shapes=shapes,
    )
    program.save(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for ids in (IDS, IDS[:, :5].repeat(3, 1)):
        (found,) = session.run(None, {"input_ids": ids.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(found), logits_of(model, ids), rtol=0, atol=1e-4
        )


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids=input_ids, use_cache=False).logits


# lm-eval


TASK = """
task: copied
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of lm-eval and what it imports
def test_lm_eval_scores_an_exported_folder_on_data_of_one_s_own(tmp_path, monkeypatch):
    lm_eval = pytest.importorskip("lm_eval", reason="the extra [eval] brings it")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    model, tokenizer = built(LLAMA.replace("vocab: 31", "vocab: 300")), Bytes().fit([])
    out = tmp_path / "out"
    hf_bridge.to_hf(model, out, tokenizer=tokenizer)
    docs = [
        {"question": f"{n} is", "choices": [" odd", " even"], "answer": n % 2} for n in range(8)
    ]
    (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps(doc)}\n" for doc in docs))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "copied.yaml").write_text(TASK.replace("DATA", str(tmp_path / "data.jsonl")))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = {}
    for name, given in {"folder": str(out), "ours": hf_bridge.as_transformers(model)}.items():
        other = {} if name == "folder" else {"tokenizer": str(out)}
        scored = HFLM(given, device="cpu", batch_size=2, max_length=32, **other)
        found = lm_eval.simple_evaluate(
            scored, tasks=["copied"], task_manager=manager, bootstrap_iters=0
        )
        results[name] = [s["filtered_resps"] for s in found["samples"]["copied"]]
    assert len(results["folder"]) == 8
    for a, b in zip(results["folder"], results["ours"], strict=True):
        assert [choice[0] for choice in a] == pytest.approx([choice[0] for choice in b], abs=1e-4)


# llama.cpp


CONVERT = """
import sys
import convert_hf_to_gguf as converter
from conversion.base import TextModel

if "--any-words" in sys.argv:  # how text is cut into words is asked of no one: ids are given
    sys.argv.remove("--any-words")
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
converter.main()
"""


@pytest.fixture
def gguf(tmp_path):
    """Converts a folder by llama.cpp's own script."""
    source = Path(os.environ.get("LLAMA_CPP_SOURCE", "/nowhere"))
    if not (source / "convert_hf_to_gguf.py").is_file():
        pytest.skip("LLAMA_CPP_SOURCE names no source of llama.cpp, which has the converter")

    def convert(folder, *options):
        out = tmp_path / "model.gguf"
        path = os.pathsep.join([str(source), str(source / "gguf-py")])
        command = [sys.executable, "-c", CONVERT, str(folder), "--outfile", str(out), *options]
        done = subprocess.run(
            [*command, "--outtype", "f32"],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return out

    return convert


def continued(path, prompt, tokens):
    """What llama.cpp writes behind a prompt, text or ids, greedily."""
    cpp = pytest.importorskip("xllamacpp", reason="the extra [gguf] brings it")
    told = cpp.CommonParams()
    told.model.path, told.n_ctx, told.n_gpu_layers, told.warmup = str(path), 64, 0, False
    told.cpuparams.n_threads = 1
    server = cpp.Server(told)
    asked = {"prompt": prompt, "n_predict": tokens, "temperature": 0.0, "ignore_eos": True}
    return server.handle_completions(asked)["choices"][0]["text"]


@pytest.mark.slow
@needs_data
def test_llama_cpp_continues_a_text_as_we_do(gguf, tmp_path):
    source = DATA / "models/stories260K/hf"
    model, _ = hf_bridge.from_hf(source)
    hf_bridge.to_hf(model, tmp_path / "out")
    shutil.copy(source / "tokenizer.json", tmp_path / "out")
    shutil.copy(source / "tokenizer_config.json", tmp_path / "out")
    path = gguf(tmp_path / "out")
    known = {case["prompt"]: case["full_text"] for case in read(REFERENCE)["greedy"]}
    written = continued(path, "Once upon a time", 25)
    assert len(written) > 50 and known["Once upon a time"].startswith(f"Once upon a time{written}")


@pytest.mark.slow
@pytest.mark.parametrize("text", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_llama_cpp_continues_ids_of_our_own_tokenizer_as_we_do(gguf, text, tmp_path):
    tokenizer = Bpe(300).fit(["the cat sat on the mat, the dog sat on the log. " * 20])
    model = built(text.replace("vocab: 31", f"vocab: {tokenizer.size}"))
    hf_bridge.to_hf(model, tmp_path / "out", tokenizer=tokenizer)
    ids = tokenizer.encode("the dog sat")
    ours = model.generate(torch.tensor([ids]), max_new_tokens=12, temperature=0.0)[0, len(ids) :]
    path = gguf(tmp_path / "out", "--any-words")
    assert continued(path, ids, 12) == tokenizer.decode(ours.tolist())


# The library's own tests of a model class


@pytest.mark.slow
def test_the_library_s_common_tests_hold_for_our_class():
    source = Path(os.environ.get("TRANSFORMERS_SOURCE", "/nowhere"))
    if not (source / "tests/test_modeling_common.py").is_file():
        pytest.skip("TRANSFORMERS_SOURCE names no unpacked source distribution of transformers")
    pytest.importorskip("parameterized", reason="the library's tests ask for parameterized")
    command = [sys.executable, "-m", "tests.common_model", str(source)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1].split()[0]) > 50
