"""Training moves what it should, stops when it should, and goes on to the bit."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import builder.training.loop
from builder import load_recipe
from builder.__main__ import main
from builder.continuation import Conversation, Sampling, continue_all, continue_text, encode_prompt
from builder.decode import NotCompiled
from builder.devices import physical_cores, use_physical_cores
from builder.errors import InputError, RecipeError, ResourceError, Stopped
from builder.training import checkpoints, disk
from builder.training.evaluate import measure
from builder.training.exam import Text
from builder.training.loop import first_batch, resume, train
from builder.training.optimizers import learners, state_tensors
from builder.training.prepare import prepare
from builder.training.progress import Progress, duration
from builder.training.runs import open_run
from builder.training.step import Step, evaluate, take_step
from tests.commands import python
from tests.tiny_runs import assert_same

ROOT = Path(__file__).parent.parent
TEXT = "To be, or not to be, that is the question. Быть или не быть, вот в чём вопрос.\n" * 40
PAGE = """
recipe: 1
name: tiny
dims: {dim: 16, heads: 2, ff: 32, vocab: 300, context: 24}
blocks:
  decoder:
    - residual: [rmsnorm, {attention: {position: rope, dropout: 0.1}}, {dropout: 0.1}]
    - residual: [rmsnorm, glu]
model: [token_embedding, {repeat: 2, block: decoder}, rmsnorm, lm_head]
tokenizer: bpe
data: {text: text.txt}
train:
  {steps: 9, batch: 4, lr: 1.0e-2, log_every: 1, eval_every: 4, checkpoint_every: 3,
   sample_tokens: 4}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "tiny.yaml").write_text(PAGE)
    return tmp_path


def recipe(*settings):
    return load_recipe(Path("tiny.yaml"), settings)


def weights(run):
    path = run.latest()
    return checkpoints.read(path, "model") | checkpoints.read(path, "training")


@pytest.fixture
def interrupted(monkeypatch):
    """Train until a signal comes during a step."""

    def until(step, *settings, number=signal.SIGTERM):
        def stepping(training, index, batch):
            if index + 1 == step:
                os.kill(os.getpid(), number)
            return take_step(training, index, batch)

        with monkeypatch.context() as patch:
            patch.setattr(builder.training.loop, "take_step", stepping)
            with pytest.raises(Stopped) as caught:
                train(recipe(*settings), Path("runs/stopped"))
        return open_run(Path("runs/stopped")), caught.value

    return until


@pytest.mark.parametrize("step", [1, 2, 4, 7])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_stopped_run_goes_on_to_the_bit(step, parts, interrupted):
    settings = (f"train.accumulate={parts}",)
    run, error = interrupted(step, *settings)
    assert error.exit_code == 75 and f"resume {run.path}" in error.help
    assert checkpoints.step_of(run.latest()) == step
    assert_same(resume(run), train(recipe(*settings), Path("runs/whole")))


def test_ctrl_c_saves_and_exits_with_130(interrupted):
    before = signal.getsignal(signal.SIGINT)
    run, error = interrupted(5, number=signal.SIGINT)
    assert error.exit_code == 130 and checkpoints.step_of(run.latest()) == 5
    assert signal.getsignal(signal.SIGINT) is before


def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_bit(folder):
    """SIGKILL leaves no time to save: what came after the last checkpoint is done again."""
    code = (
        "import os, builder.training.loop as t\n"
        "from builder import load_recipe; from pathlib import Path\n"
        "step = t.take_step\n"
        "t.take_step = lambda s, i, b: os.kill(os.getpid(), 9) if i == 7 else step(s, i, b)\n"
        "t.train(load_recipe(Path('tiny.yaml')), Path('runs/killed'))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert killed.returncode == -9
    run = open_run(Path("runs/killed"))
    assert checkpoints.step_of(run.latest()) == 6 and run.metrics()[-1]["step"] == 7
    assert_same(resume(run), train(recipe(), Path("runs/whole")))


def test_resuming_falls_back_past_a_damaged_checkpoint_and_says_so(interrupted, capsys):
    run, _ = interrupted(7)
    (run.latest() / "training.safetensors").write_bytes(b"")
    resumed = resume(run)
    assert "passing over step_000007" in capsys.readouterr().err
    assert_same(resumed, train(recipe(), Path("runs/whole")))


def test_a_run_is_resumed_from_any_folder(interrupted, tmp_path, monkeypatch):
    interrupted(4)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resume(open_run(Path("../runs/stopped")))


def test_changed_text_is_noticed_at_resume(interrupted):
    run, _ = interrupted(4)
    Path("text.txt").write_text(TEXT.replace("To be", "To do"), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        resume(run)
    assert caught.value.code == "data-changed"


def test_training_lowers_the_loss_and_keeps_its_story():
    run = train(recipe("train.steps=40", "train.keep=2"))
    steps = [event for event in run.metrics() if event["event"] == "step"]
    assert len(steps) == 40 and steps[-1]["loss"] < steps[0]["loss"] - 1
    assert len(checkpoints.all_in(run.checkpoints)) == 2
    found = [event for event in run.metrics() if event["event"] == "validation"][-1]
    measured = measure(run)["validation"].bits_per_byte
    assert measured == pytest.approx(found["bits_per_byte"], rel=1e-6)
    assert (run.path / "samples.txt").read_text(encoding="utf-8").count("--- step") == 10


def test_parts_of_a_batch_give_the_gradient_of_the_whole():
    """Unequal parts are weighted by their tokens; 1e-5 is float32 rounding."""
    still = ("blocks.decoder.attention.dropout=0", "blocks.decoder.dropout=none")
    whole, parts = (prepare(recipe(*still, f"train.accumulate={n}")) for n in (1, 3))
    steps = [take_step(prepared.training, 0, first_batch(prepared)) for prepared in (whole, parts)]
    assert steps[0].loss == pytest.approx(steps[1].loss, rel=1e-5)
    memories = [state_tensors(p.training.optimizers, p.training.model) for p in (whole, parts)]
    for name, value in memories[0].items():
        torch.testing.assert_close(memories[1][name], value, rtol=1e-4, atol=1e-7)


def test_numbers_that_are_not_finite_move_nothing():
    prepared = prepare(recipe())
    training = prepared.training
    parameter = next(training.model.parameters())
    with torch.no_grad():
        parameter[:] = float("inf")
    before = [p.clone() for p in training.model.parameters()]
    assert not take_step(training, 2, first_batch(prepared)).finite
    assert all(map(torch.equal, before, training.model.parameters()))


def test_only_matrices_that_mix_decay():
    model = (
        "[token_embedding, learned_positions, {repeat: 2, block: decoder}, {lm_head: {tie: true}}]"
    )
    training = prepare(recipe(f"model={model}")).training
    names = {name for name, _ in training.model.named_parameters()}
    found = learners(training.model, training.model.recipe.graph)
    decayed = {one.name for one in found if one.mixes}
    kept = {one.name for one in found} - decayed
    assert decayed | kept == names
    assert {"token_embedding.weight", "learned_positions.weight"} < kept
    assert "layers.0.attention.q.weight" in decayed and "layers.1.glu.down.weight" in decayed
    assert not any("norm" in name for name in decayed)


@pytest.mark.parametrize("batch", [1, 3, 8, 100])
def test_bits_per_byte_do_not_depend_on_the_batch_size(batch):
    """float64 sums of the same float32 losses; a matrix product may round by its shape."""
    prepared = prepare(recipe())
    model, tokens = prepared.training.model, prepared.texts.corpus.train.stretch(0, 500)
    found = evaluate(model, Text(tokens, 900, 24), batch)
    again = evaluate(model, Text(tokens, 900, 24), 7)
    assert found.bits_per_byte == pytest.approx(again.bits_per_byte, rel=1e-6)
    assert found.tokens == 499
    one_by_one = evaluate(model, Text(tokens.stretch(0, 1), 0, 24))
    assert one_by_one.tokens == 0


def test_the_end_shows_a_sample_and_commands_to_try(capsys):
    assert main(["train", "tiny.yaml", "tokenizer=char", "train.steps=2", "--run", "runs/a b"]) == 0
    out = capsys.readouterr().out
    sample = Path("runs/a b/samples.txt").read_text(encoding="utf-8").rpartition("--- step 2\n")[2]
    assert sample.strip() in out
    command = next(line for line in out.splitlines() if " generate " in line)
    assert main(shlex.split(command)[3:]) == 0


def test_bf16_trains():
    run = train(recipe("train.dtype=bf16", "train.steps=3"))
    assert {t.dtype for t in weights(run).values()} == {torch.float32}


def test_a_run_starts_from_another_and_says_what_it_does_not_take(capsys):
    first = train(recipe())
    second = train(recipe("dims.ff=48", "train.steps=1", "train.lr=1e-12"), start=first)
    said = capsys.readouterr().err
    assert "layers.0.glu.down.weight: (16, 32) there, (16, 48) here" in said
    assert second.tokenizer.hash == first.tokenizer.hash
    one, two = weights(first), weights(second)
    torch.testing.assert_close(two["lm_head.weight"], one["lm_head.weight"], rtol=0, atol=1e-6)


def test_a_dry_run_writes_no_run(capsys):
    assert main(["train", "tiny.yaml", "--dry-run"]) == 0
    assert "steps take about" in capsys.readouterr().out
    assert [path.name for path in Path("runs").iterdir()] == [".cache"]


def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(monkeypatch):
    save = disk.save

    def full(path, tensors):
        if len(checkpoints.all_in(path.parent.parent)) == 1:
            raise OSError(28, "No space left on device")
        save(path, tensors)

    monkeypatch.setattr(disk, "save", full)
    with pytest.raises(ResourceError, match="step 6") as caught:
        train(recipe(), Path("runs/full"))
    run = open_run(Path("runs/full"))
    assert caught.value.exit_code == 3 and "step_000003 is untouched" in caught.value.help
    assert checkpoints.step_of(run.latest()) == 3


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (["tokenizer=bytes", "dims.vocab=256"], "tokenizer-too-large"),
        (["data.text=nowhere"], "no-such-data"),
        (["data.text=short.txt"], "corpus-too-small"),
        (["train.sample=" + "long " * 60], "prompt-too-long"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_run_is_made(settings, code):
    Path("short.txt").write_text("0123456789")
    with pytest.raises(InputError) as caught:
        train(recipe(*settings))
    assert caught.value.code == code and caught.value.exit_code == 2
    assert not list(Path("runs").glob("[0-9]*"))


def test_a_training_length_past_the_context_is_refused_on_the_page():
    with pytest.raises(RecipeError, match="length=30 is more than context=") as caught:
        recipe("train.length=30")
    assert caught.value.findings[0].mark.source.name == "<command line>"


def test_an_impossible_device_is_an_input_error():
    with pytest.raises(InputError, match="warp") as caught:
        train(recipe(), device="warp")
    assert caught.value.code == "no-device"


# What a run is for


@pytest.fixture
def trained():
    run = train(recipe("train.steps=3"), Path("runs/trained"))
    return run.model(), run.tokenizer


GREEDY = Sampling(temperature=0)


def test_prompts_of_unequal_length_continue_as_each_does_alone(trained):
    model, tokenizer = trained
    rows = [encode_prompt(tokenizer, prompt, 24) for prompt in ("To be", "", "Быть или не")]
    alone = [
        tokenizer.decode(continue_text(model, tokenizer, row, 5, GREEDY, print)) for row in rows
    ]
    assert continue_all(model, tokenizer, rows, 5, GREEDY) == alone


def test_streamed_text_is_the_text(trained):
    model, tokenizer = trained
    out = io.StringIO()
    prompt = encode_prompt(tokenizer, "Быть", 24)
    ids = continue_text(model, tokenizer, prompt, 12, Sampling(seed=1), out.write)
    assert "Быть" + out.getvalue() == tokenizer.decode(ids)


def test_a_conversation_reads_only_what_is_new_and_answers_as_without_a_cache(trained):
    model, tokenizer = trained
    talk, out = Conversation(model, tokenizer, GREEDY, 3), io.StringIO()
    talk.answer("To be", out.write)
    read = len(talk.ids)
    talk.answer("or", out.write)
    again = [*talk.ids[:read], *tokenizer.encode("\nor")]
    assert talk.ids == continue_text(model, tokenizer, again, 3, GREEDY, out.write)
    assert len(talk.cache) == len(talk.ids) - 1
    with pytest.raises(InputError, match="no room"):
        talk.answer("To be, or not to be " * 9, out.write)
    talk.reset()
    talk.answer("To be", out.write)


def test_the_verbs_tell_their_results_on_stdout(trained, capsys, monkeypatch):
    assert main(["generate", "runs/trained", "To be", "--greedy", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("To be")
    assert main(["eval", "runs/trained", "--data", "text.txt"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("To\n/reset\nbe\n/quit\nnot read\n"))
    assert main(["chat", "runs/trained", "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.count("\n") >= 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of what it does itself
def test_rounded_steps_tell_what_they_are_off_by(trained, capsys):
    for prompts in (["To be"], ["To be", "or"]):
        words = ["generate", "runs/trained", *prompts, "--greedy", "--max-new-tokens", "9"]
        assert main([*words, "--compile", "always"]) == 0
        compiled = capsys.readouterr()
        assert main([*words, "--compile", "never"]) == 0
        assert compiled == capsys.readouterr()
        assert main([*words, "--int8"]) == 0
        rounded = capsys.readouterr()
        assert rounded.out.startswith("To be")
        off = float(re.search("off by (.*) nats", rounded.err).group(1))
        assert 0 < off < 0.01


def test_steps_that_cannot_be_rounded_are_refused(trained, capsys, monkeypatch):
    def refusing(*given, **named):
        raise NotCompiled("no C++ compiler")

    monkeypatch.setattr("builder.decode.Decoder", refusing)
    assert main(["generate", "runs/trained", "To be", "--int8"]) == 2
    assert "error[no-int8]: the steps are not compiled: no C++ compiler" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["generate", "runs/trained", "To be or not " * 20], "prompt-too-long"),
        (["generate", "absent", "x"], "not-a-run"),
        (["generate", "runs/trained", "x", "--device", "warp"], "no-device"),
        (["generate", "runs/trained", "x", "--top-p", "0"], "usage"),
        (["eval", "runs/trained", "--data", "absent.txt"], "no-such-data"),
        (["resume", "."], "not-a-run"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(trained, argv, code, capsys):
    assert main(argv) == 2
    assert f"error[{code}]" in capsys.readouterr().err


def test_progress_rewrites_one_line_on_a_terminal_and_is_sparse_in_a_file():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = {}
    for stream in (Terminal(), io.StringIO()):
        seconds = iter(range(1000))
        progress = Progress(100, 64, stream, clock=lambda seconds=seconds: next(seconds))
        for number in range(1, 101):
            progress.timed(0.5)
            progress.show(Step(number, 2.0, 1.0, 1e-3))
        shown[type(stream)] = stream.getvalue()
    assert "\n" not in shown[Terminal] and shown[Terminal].count("\r") == 100
    assert 5 < shown[io.StringIO].count("\n") < 15
    assert "128 tokens/s" in shown[io.StringIO] and duration(3725) == "1:02:05"


def test_every_metric_is_json_that_others_read():
    run = train(recipe("train.steps=2", "train.eval_tokens=0"))
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_a_run_takes_a_thread_for_each_core_unless_told_how_many(monkeypatch):
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    use_physical_cores()
    monkeypatch.delenv("OMP_NUM_THREADS")
    use_physical_cores()
    assert taken == [physical_cores()] and 1 <= taken[0] <= os.cpu_count()


def test_memory_is_kept_unless_the_environment_says_otherwise(tmp_path, monkeypatch):
    """Of a block of 8 MB, allocated and freed again and again, no page is cleared twice."""
    page = """
import resource, torch
from builder.devices import keep_memory
keep_memory()
for _ in range(40):
    torch.empty(1 << 21).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.empty(1 << 21).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def faults():
        return int(python(tmp_path, "-c", page).stdout)

    assert faults() < 200
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert faults() > 200
