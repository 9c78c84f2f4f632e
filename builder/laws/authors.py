"""The laws as one test, for the author of a plug-in: each of its words, in whatever surroundings.

In a test file of one's own, beside ``my_blocks.py``::

    from builder.laws import battery

    test_my_blocks_keep_every_law = battery("my_blocks.py")

"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from blocks import registry
from builder.index import Entry, load_index
from builder.laws.case import Case
from builder.laws.laws import hold
from builder.laws.option_pages import model_entries
from builder.laws.options import dead_options, words_of
from builder.laws.strategies import recipes
from builder.read import dump
from builder.recipe import Recipe

SEEDS = 999
EXAMPLES = 40


def battery(*plugins: Path | str, max_examples: int = EXAMPLES) -> Callable[[], None]:
    """A test that holds every word of some plug-ins to every law, and each option to some effect.

    It draws ``max_examples`` recipes, each with a word of theirs, by hypothesis.  The plug-ins are
    looked for from here, else beside the file that calls this.  What a broken law raises bears
    notes of the law, the seed, and the page of the smallest recipe that breaks it.  AssertionError
    says too which option is dead, and which word was never drawn.
    """
    beside = Path(sys._getframe(1).f_code.co_filename).parent
    paths = tuple(_found(Path(plugin), beside) for plugin in plugins)

    def test() -> None:
        with registered_meanwhile(paths):
            entries = entries_of(paths)
            assert entries, f"{_named(paths)} registers no word that a model may hold"
            assert_no_option_is_dead(entries, paths)
            missed = {entry.word for entry in entries} - drawn_and_held(
                entries, paths, max_examples
            )
            assert not missed, (
                f"{', '.join(sorted(missed))} of {_named(paths)} was never drawn: "
                f"nowhere was found where it may stand, or {max_examples} recipes are too few"
            )

    return test


def entries_of(plugins: Sequence[Path]) -> list[Entry]:
    """The words that the plug-ins register and a model may hold."""
    index = load_index(plugins)
    files = {plugin.resolve() for plugin in plugins}
    return [entry for entry in model_entries(index) if entry.path in files]


def assert_no_option_is_dead(entries: Sequence[Entry], plugins: Sequence[Path]) -> None:
    """Every option of these words alters something.  AssertionError names those that do not."""
    index = load_index(plugins)
    dead = [line for entry in entries for line in dead_options(entry, index)]
    assert not dead, "no option is dead: " + "; ".join(dead)


def drawn_and_held(
    entries: Sequence[Entry], plugins: Sequence[Path], max_examples: int
) -> set[str]:
    """Draw recipes and hold each to every law; the words that were drawn, by kind and name."""
    words = sorted(entry.word for entry in entries)
    seen: set[str] = set()

    @settings(
        max_examples=max_examples,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[phase for phase in Phase if phase is not Phase.explain],  # it takes minutes
    )
    @given(recipe=recipes(plugins=plugins, holding=words), seed=st.integers(0, SEEDS))
    def every_law_holds(recipe: Recipe, seed: int) -> None:
        seen.update(word.word for word in words_of(recipe.graph))
        try:
            hold(Case(recipe, seed))
        except Exception as error:
            error.add_note(f"on this page:\n{dump(recipe.page).strip()}")
            raise

    every_law_holds()
    return seen


@contextmanager
def registered_meanwhile(plugins: Sequence[Path]) -> Iterator[None]:
    """Leave what is registered as it was: another plug-in may want the same words."""
    before = set(sys.modules)
    try:
        yield
    finally:
        new = {f"plugin_{path.stem}" for path in plugins} - before
        for key in [key for key, cls in registry.REGISTRY.items() if cls.__module__ in new]:
            del registry.REGISTRY[key]
        for name in new & set(sys.modules):
            del sys.modules[name]


def _found(path: Path, beside: Path) -> Path:
    return path if path.exists() or path.is_absolute() else beside / path


def _named(plugins: Sequence[Path]) -> str:
    return ", ".join(path.name for path in plugins)
