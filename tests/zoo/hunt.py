"""Which law sees a bug, or which test.  This is imported where the code has the bug in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from builder.index import load_index
from builder.laws import LAWS, recipes
from builder.laws.case import Case
from builder.laws.parameters import initial_weights_are_keyed
from builder.laws.spellings import spelling_changes_nothing
from builder.laws.strategies import respellings, swaps
from builder.read import to_python
from builder.recipe import Recipe, load_recipe
from tests.zoo.question import Question

Found = tuple[str, int, str]  # a law or a test, "" for none; after how many recipes; what it says
SUITE = (  # references and examples: what is asked where no law complains
    *("test_blocks.py", "test_attention.py", "test_latent_attention.py", "test_scaling.py"),
    *("test_mixers.py", "test_moe.py", "test_wiring.py", "test_cache.py", "test_assemble.py"),
    *(
        "test_positions.py",
        "test_loss.py",
        "test_identities.py",
        "test_weights.py",
        "test_train.py",
    ),
)
BUILDING = "building"  # no model comes of a good page


def drawn(number: int, count: int, holding: Sequence[str] = ()) -> list[Question]:
    """So many questions, always the same for a number, about one of some words if there are any."""
    found: list[Question] = []
    seldom = st.integers(1, 4)

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data(), number=st.integers(0, 999))
    def draw(data: st.DataObject, number: int) -> None:
        pair = data.draw(respellings()) if not holding and data.draw(seldom) == 1 else None
        swap = data.draw(swaps()) if not holding and data.draw(seldom) == 1 else None
        recipe = pair[0] if pair else data.draw(recipes(holding=holding))
        respelled = _page(pair[1]) if pair else None
        swapped = (_page(swap[0]), _page(swap[1])) if swap else None
        found.append(Question(_page(recipe), number, respelled, swapped))

    draw()
    return found


def words_of_models() -> list[str]:
    """Every word of what models are made of."""
    return sorted({entry.word for entry in load_index() if entry.path.parent.name == "blocks"})


def _page(recipe: Recipe) -> dict[str, object]:
    page = to_python(recipe.page)
    assert isinstance(page, dict)
    return page


def ask_laws(questions: Sequence[Question], only: str = "") -> Found:
    """The first law that sees the bug, of all or of this one only."""
    for count, question in enumerate(questions, 1):
        for law, said in complaints(question, only):
            return law, count, said
    return "", len(questions), ""


def complaints(question: Question, only: str) -> Iterator[tuple[str, str]]:
    """The laws that the code breaks here, with what is said."""
    try:
        case = Case(load_recipe(question.page), question.seed)
        assert case.model is not None
    except Exception as error:
        yield BUILDING, told(error)
        return
    for law, ask in asked(case, question):
        if only in ("", law) and (said := complaint(ask)):
            yield law, said


def asked(case: Case, question: Question) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every law about a case, and those about two recipes where two are given."""
    for name, law in LAWS.items():
        yield name, partial(law, case)
    if other := question.respelled:
        name = spelling_changes_nothing.__name__
        yield name, lambda: spelling_changes_nothing(case, load_recipe(other))
    if pair := question.swapped:
        ours, theirs = map(load_recipe, pair)
        name = initial_weights_are_keyed.__name__
        yield name, lambda: initial_weights_are_keyed(Case(ours, case.seed), theirs)


def complaint(ask: Callable[[], object]) -> str:
    """What an exception says, and nothing if there is none."""
    try:
        ask()
    except Exception as error:
        return told(error)
    return ""


def told(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}"


def ask_tests(home: Path, tests: Sequence[str] = SUITE) -> Found:
    """The first test that sees the bug, of these files or of these functions."""
    first = _FirstFailure()
    paths = [str(home / "tests" / test) for test in tests]
    options = ["-x", "-q", "-m", "not slow", "--rootdir", str(home), "--assert=plain"]
    options += ["-p", "no:cacheprovider"]  # hypothesis is imported already: nothing is rewritten
    pytest.main([*options, *paths], plugins=[first])
    return first.test, 0, first.said


@dataclass
class _FirstFailure:
    test: str = ""
    said: str = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid.removeprefix("tests/").partition("[")[0]
            self.said = report.longreprtext.strip().splitlines()[-1]
