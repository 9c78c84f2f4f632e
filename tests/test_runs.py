"""A run folder is never overwritten, never half there, and says what it is."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from builder import build, load_recipe
from builder.errors import DamagedError, InputError, ResourceError
from builder.tokenizers import Bytes
from builder.training import runs
from builder.training.runs import (
    Run,
    create_run,
    load_weights,
    open_run,
    save_checkpoint,
    take_weights,
)

PAGE = """
recipe: 1
name: tiny
dims: {dim: 8, heads: 2, ff: 16, vocab: 257, context: 16}
blocks:
  decoder:
    - residual: [rmsnorm, attention]
    - residual: [rmsnorm, glu]
model: [token_embedding, {repeat: 2, block: decoder}, rmsnorm, {lm_head: {tie: true}}]
tokenizer: bytes
data: python_docs
train: {steps: 4}
"""


@pytest.fixture(scope="module")
def recipe():
    return load_recipe(PAGE)


@pytest.fixture
def run(recipe, tmp_path):
    return create_run(recipe, Bytes().fit([]), ["train"], root=tmp_path / "runs")


def test_a_run_gives_back_what_it_was_made_from(run, recipe):
    opened = open_run(run.path)
    assert opened.recipe.graph == recipe.graph
    assert opened.recipe.train == recipe.train
    assert (run.path / "recipe.yaml").read_text() == PAGE
    assert opened.tokenizer.hash == Bytes().fit([]).hash
    assert opened.environment["command"] == ["train"]
    assert run.path.name.endswith(f"_tiny_{recipe.hash[:8]}")


def test_many_starts_in_one_second_make_as_many_folders(recipe, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create_run(recipe, None, [], root=tmp_path), range(24)))
    assert len({run.path for run in made}) == 24
    assert len(list(tmp_path.iterdir())) == 24  # no temporary folder is left
    assert all((run.path / "resolved.yaml").exists() for run in made)


def test_a_named_run_is_never_overwritten(recipe, tmp_path):
    create_run(recipe, None, [], path=tmp_path / "mine")
    with pytest.raises(InputError) as caught:
        create_run(recipe, None, [], path=tmp_path / "mine")
    assert caught.value.code == "run-exists"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_be_written_leaves_nothing(recipe, tmp_path, monkeypatch, code):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(runs.disk, "sync", fail)
    with pytest.raises(ResourceError):
        create_run(recipe, None, [], root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_folder_is_not_a_run(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError) as caught:
            open_run(path)
        assert caught.value.code == "not-a-run"


def test_a_run_without_a_checkpoint_says_so(run):
    with pytest.raises(InputError) as caught:
        run.model()
    assert caught.value.code == "no-checkpoint"


def test_a_saved_model_comes_back_to_the_bit(run, recipe):
    model = build(recipe, seed=7)
    save_checkpoint(run, model, 3)
    ids = torch.randint(257, (2, 9))
    assert torch.equal(run.model()(ids), model.eval()(ids))
    assert run.model(dtype=torch.float64)(ids).dtype == torch.float64


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(run, recipe, capsys):
    first, second = build(recipe, seed=1), build(recipe, seed=2)
    save_checkpoint(run, first, 1)
    bad = save_checkpoint(run, second, 2) / "model.safetensors"
    data = bytearray(bad.read_bytes())
    data[-1] ^= 1
    bad.write_bytes(data)
    ids = torch.randint(257, (1, 5))
    assert torch.equal(run.model()(ids), first.eval()(ids))
    assert "passing over step_000002" in capsys.readouterr().err


def test_weights_of_another_recipe_are_damage_naming_the_parameter(run, recipe):
    path = save_checkpoint(run, build(recipe.set("dims.ff", 24)), 1)
    with pytest.raises(DamagedError, match=r"layers\.0\.glu"):
        load_weights(build(recipe), path)


def test_weights_are_taken_by_name_and_shape_and_the_rest_is_said(run, recipe):
    source = build(recipe, seed=5)
    path = save_checkpoint(run, source, 1)
    model = build(recipe.set("dims.ff", 24).set("model.repeat", 3), seed=6)
    left = take_weights(model, path)
    parameters, taken = dict(model.named_parameters()), dict(source.named_parameters())
    said = {line.partition(":")[0] for line in left}
    assert any("layers.0.glu" in name for name in said) and any(
        "layers.2." in name for name in said
    )
    for name in parameters:
        same = name in taken and torch.equal(parameters[name], taken[name])
        assert same != (name in said) or parameters[name].dim() == 1


def test_two_writers_cannot_hold_one_run(run):
    with run.locked(), pytest.raises(InputError) as caught, open_run(run.path).locked():
        pass
    assert caught.value.code == "run-busy"
    with run.locked():
        pass


def test_metrics_are_rewound_and_a_torn_line_left_out(run):
    for step in (1, 2, 3):
        run.log({"event": "step", "step": step})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "st')
    assert [event["step"] for event in run.metrics()] == [1, 2, 3]
    run.rewind(2)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_run_of_an_imported_model_needs_no_tokenizer_until_text_is_read(recipe, tmp_path):
    run = create_run(recipe, None, ["import"], path=tmp_path / "imported")
    save_checkpoint(run, build(recipe))
    assert Run(run.path).model() is not None
    with pytest.raises(InputError) as caught:
        _ = run.tokenizer
    assert caught.value.code == "no-tokenizer"
