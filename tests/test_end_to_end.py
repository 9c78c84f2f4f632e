"""From a page to text, and out to the library: each shipped recipe, trained for a few steps."""

from __future__ import annotations

import pytest
import torch
import transformers

from builder.training.runs import open_run
from tests.commands import ROOT, python

SHORT = [  # on text that is tokenised in a moment
    "data={text: corpus.txt}",
    "train.steps=12",
    "train.eval_every=12",
    "train.checkpoint_every=12",
    "train.sample_tokens=0",
]
TEXTS = [
    "Return a new list.",
    "  two spaces,\ttabs\n\nand lines",
    "def f(x):\n    return x ** 2",
    "Ещё раз: привет, мир",
    "emoji 🙂🙃 and 中文",
    "<|endoftext|> is text here",
    "",
]
pytestmark = pytest.mark.slow


def command(folder, *words):
    return python(folder, "-m", "builder", *words)


@pytest.fixture(scope="module", params=["gpt", "gpt2", "llama", "mistral"])
def exported(request, tmp_path_factory):
    """A trained run, and the library's model and tokenizer from its exported folder."""
    folder = tmp_path_factory.mktemp(request.param)
    pages = sorted(ROOT.glob("docs/*.md"))
    (folder / "corpus.txt").write_text("".join(page.read_text("utf-8") for page in pages), "utf-8")
    trained = command(folder, "train", f"recipes/{request.param}.yaml", *SHORT, "--run", "run")
    assert trained.returncode == 0, trained.stderr
    wrote = command(folder, "export", "run", "out")
    assert wrote.returncode == 0, wrote.stderr
    assert "Recipe" not in wrote.stdout, "a native class fits"
    run = open_run(folder / "run")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "out").eval()
    return run, theirs, transformers.AutoTokenizer.from_pretrained(folder / "out")


def test_an_exported_run_has_the_same_logits(exported):
    run, theirs, _ = exported
    ids = torch.randint(run.recipe.dims.vocab, (2, 96), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, run.model()(ids), rtol=0, atol=1e-5)


def test_an_exported_run_goes_on_with_the_same_64_tokens(exported):
    run, theirs, _ = exported
    ids = torch.tensor([run.tokenizer.prompt("Return a new list of")])
    ours = run.model().generate(ids, 64, temperature=0)
    found = theirs.generate(ids, max_new_tokens=64, do_sample=False, eos_token_id=None)
    assert found.tolist() == ours.tolist()


@pytest.mark.parametrize("text", TEXTS)
def test_an_exported_tokenizer_gives_the_same_ids(exported, text):
    run, _, tokenizer = exported
    ids = run.tokenizer.encode(text)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    assert run.tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
