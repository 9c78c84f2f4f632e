"""Whatever a page says, the answer is a model or an error of ours, soon and in its place."""

from __future__ import annotations

import json
import os
import random
import re
import resource
from pathlib import Path

import pytest
from hypothesis import settings

from builder import load_recipe
from builder.errors import BuilderError, RecipeError, render, show
from tests.commands import python
from tests.hostile import PAGES, TIMES, timed

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [
    path.read_text(errors="replace")
    for folder in ("recipes", "recipes/gallery", "tests/faults")
    for path in sorted(ROOT.glob(f"{folder}/*.yaml"))
]
PROVING = os.environ.get("HYPOTHESIS_PROFILE") == "prove"
CHUNKS = 6
EACH = 25 * settings().max_examples if PROVING else 1000  # pages of a chunk
MEGABYTES = 200
SECONDS = 1.0  # of processor time for a mutant, which takes a fifth of it at most

TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
NASTY = (
    *("0", "-1", "1e999", "1e-400", ".nan", ".inf", "9" * 400, "0x7fffffffffffffff", "1e400"),
    *(
        "9223372036854775807",
        "10000",
        "10001",
        "1/0",
        "1e308*10",
        "layer",
        "layers - layer",
        "none",
    ),
    *(
        "null",
        "true",
        "''",
        "[]",
        "{}",
        "~",
        "-0.0",
        "0.5",
        "dim",
        "ff(layer)",
        "min(1, 2)",
        "2**9",
    ),
)
PIECES = "{}[]:,-#&*!|>'\"%@`?~ \t\n\r\0\x07\x85\u2028é日\ufeff\ud800\U0001f600a0.$()=<\\"
WORDS = sorted({word for text in TEXTS for word in re.findall(r"[a-z_]\w+", text)})


def mutated(seed: int) -> str:
    """A recipe or a fault with up to five things changed, most often one."""
    chance = random.Random(seed)
    text = chance.choice(TEXTS)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 5])):
        text = chance.choice(MUTATIONS)(text, chance)
    return text + "\n"


def flip(text, chance):
    """A few characters deleted, or some put in."""
    start = chance.randrange(len(text) + 1)
    piece = "".join(chance.choices(PIECES, k=chance.choice([0, 1, 2])))
    return text[:start] + piece + text[start + chance.choice([0, 0, 1, 3, 20]) :]


def change_token(text, chance):
    """A word or a sign deleted, doubled, swapped, or replaced by one from anywhere."""
    tokens = TOKEN.findall(text)
    places = [i for i, token in enumerate(tokens) if not token.isspace()] or [0]
    tokens = tokens or [""]
    i, j = chance.choice(places), chance.choice(places)
    match chance.randrange(5):
        case 0:
            del tokens[i]
        case 1:
            tokens.insert(i, tokens[j])
        case 2:
            tokens[i], tokens[j] = tokens[j], tokens[i]
        case 3:
            tokens[i] = chance.choice(WORDS)
        case 4:
            tokens[i] = chance.choice(NASTY)
    return "".join(tokens)


def change_number(text, chance):
    """One number becomes a nasty one."""
    places = list(re.finditer(r"\b\d[\d.e-]*", text))
    if not places:
        return text
    place = chance.choice(places)
    return text[: place.start()] + chance.choice(NASTY) + text[place.end() :]


def change_line(text, chance):
    """A line deleted, doubled, moved, indented otherwise, or taken from another recipe."""
    lines = text.split("\n")
    i, j = (chance.randrange(len(lines)) for _ in "ij")
    match chance.randrange(5):
        case 0:
            del lines[i]
        case 1:
            lines.insert(j, lines[i])
        case 2:
            lines[i], lines[j] = lines[j], lines[i]
        case 3:
            lines[i] = chance.choice([" ", "  ", "\t", ""]) + lines[i].lstrip(" ")
        case 4:
            lines[i : i + chance.randrange(4)] = chance.choice(TEXTS).split("\n")[j : j + 4]
    return "\n".join(lines)


def nest(text, chance):
    """A value put into a node, a list or brackets."""
    places = list(re.finditer(r"(?<=[:\[,] )[\w.]+(?=[\],}\n])", text))
    if not places:
        return text
    place = chance.choice(places)
    around = chance.choice(
        ["[X]", "{residual: X}", "{repeat: 3, block: X}", "{like: X}", "[X, X]", "{X: X}", "(X)"]
    )
    return text[: place.start()] + around.replace("X", place[0]) + text[place.end() :]


MUTATIONS = [flip, change_token, change_token, change_number, change_number, change_line, nest]


def answer(text: str) -> BuilderError | None:
    """The error that a page is answered with; warnings are looked at too."""
    try:
        warnings = load_recipe(text).warnings
    except BuilderError as error:
        return error
    return RecipeError(warnings) if warnings else None


def misplaced(finding) -> str:
    """What is wrong with the place of a finding, if anything is."""
    mark = finding.mark
    lines = mark.source.lines
    if not 1 <= mark.line <= len(lines):
        return f"line {mark.line} of {len(lines)}"
    if not 1 <= mark.column <= len(lines[mark.line - 1]) + 1 or mark.width < 1:
        return f"column {mark.column}, {mark.width} wide, of {lines[mark.line - 1]!r}"
    return ""


@pytest.mark.parametrize(
    "chunk", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, CHUNKS))]
)
def test_a_mutated_recipe_is_answered_soon_and_in_its_place(monkeypatch, chunk):
    monkeypatch.chdir(ROOT)
    base = random.randrange(10**9) if PROVING else 0
    for seed in range(base + chunk * EACH, base + (chunk + 1) * EACH):
        text = mutated(seed)
        error, seconds = timed(answer, text)
        if seconds > SECONDS:  # a busy machine only adds
            seconds = min(timed(answer, text)[1] for _ in range(3))
        assert seconds < SECONDS, seed
        if error is None:
            continue
        assert show(error).encode(errors="strict"), seed
        assert all(c.isprintable() or c == "\n" for c in show(error)), seed
        for finding in getattr(error, "findings", ()):
            assert not misplaced(finding), (seed, finding.code, misplaced(finding))
            assert finding.message and str(finding.mark) in render(finding), seed


def test_mutations_reach_models_and_many_faults():
    """The fuzz is worth its time: some pages still stand, the others fall in many ways."""
    answers = [answer(mutated(seed)) for seed in range(400)]
    codes = {finding.code for error in answers for finding in getattr(error, "findings", ())}
    assert sum(error is None for error in answers) > 20
    assert len(codes) > 25


@pytest.mark.slow
def test_a_hostile_page_costs_little_and_shows_no_traceback():
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (120, 120))

    done = python(ROOT, "-m", "tests.hostile", before=limit)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows] == list(PAGES), (done.stderr, rows[-1:])
    assert not [row for row in rows if not re.fullmatch(r"[a-z0-9-]+", row["told"])]
    assert not [row for row in rows if row["times"] > TIMES]
    assert rows[-1]["megabytes"] < MEGABYTES
