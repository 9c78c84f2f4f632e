"""What is compared: a base, and variants of it that differ in one thing, or in two together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import TypeAlias

from builder.edit import Assignment
from builder.errors import InputError
from builder.read import flow, read_value, to_python
from builder.recipe import Recipe, load_recipe

BASE = "base"
Setting: TypeAlias = str | Assignment  # ``path=value``, or where it stands in a file
FILE = ".yaml"


@dataclass(frozen=True)
class Variant:
    """A row: a recipe file with what is set on top of it.

    ``parts`` names the rows of which it is the combination.
    """

    name: str
    path: Path
    settings: tuple[Setting, ...] = ()
    parts: tuple[str, ...] = ()
    plugins: tuple[Path, ...] = ()
    recipe: Recipe = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", load_recipe(self.path, self.settings, self.plugins))

    def with_settings(self, *settings: Setting) -> Variant:
        """The same row, with more set."""
        every = (*self.settings, *settings)
        return Variant(self.name, self.path, every, self.parts, self.plugins)

    @property
    def words(self) -> list[str]:
        """What is set, as ``path=value`` for a command line."""
        return [
            setting if isinstance(setting, str) else spelt(setting) for setting in self.settings
        ]


def spelt(setting: Assignment) -> str:
    """A setting of a file, as it would be written on the command line."""
    return f"{setting.path}={flow(to_python(setting.value))}"


@dataclass(frozen=True)
class Swap:
    """A path and the values that stand there in turn, as they were written."""

    path: str
    values: tuple[str, ...]

    @staticmethod
    def read(text: str) -> Swap:
        """``PATH=V1,V2,...``, each value in YAML flow, or a file that holds one.

        InputError ``not-an-assignment``.
        """
        path, equals, values = text.partition("=")
        if not equals or not path.strip():
            message = f"{text!r} is not path=value,value,..."
            raise InputError("not-an-assignment", message, "--swap PATH=rope,alibi,none")
        found = tuple(value.strip() for value in parted(values))
        return Swap(path.strip(), found)

    @property
    def short(self) -> str:
        """The end of the path, which tells what is swapped."""
        words = self.path.split(".")
        kept = words[-2:] if words[-1].isdigit() or words[-1] == "all" else words[-1:]
        return ".".join(kept)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Each value's name, and what it sets."""
        for value in self.values:
            path = Path(value)
            if path.suffix == FILE and path.is_file():
                held = flow(to_python(read_value(path.read_text("utf-8"), str(path))))
                yield f"{self.short}={path.stem}", f"{self.path}={held}"
            else:
                yield f"{self.short}={value}", f"{self.path}={value}"


def parted(text: str) -> Iterator[str]:
    """A list's items, cut at the commas that stand in no bracket and no quotes."""
    start = depth = 0
    quote = ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "," and not depth:
            yield text[start:place]
            start = place + 1
        else:
            depth += (letter in "[{(") - (letter in "]})")
    yield text[start:]


def variants(
    recipes: Sequence[Path],
    overrides: Sequence[str] = (),
    swaps: Sequence[str] = (),
    cross: bool = False,
    plugins: Sequence[Path] = (),
) -> list[Variant]:
    """The base first, then its rows: each swapped value, with ``cross`` each combination of two
    swaps or more too, and every further recipe.

    A value that is the base's own makes no row.  InputError if nothing is left to compare.
    """
    first, *others = recipes
    settings, given = tuple(overrides), tuple(plugins)
    base = Variant(BASE, first, settings, (), given)
    found = [base]
    singles = [list(single(base, Swap.read(swap))) for swap in swaps]
    for size in range(1, 1 + (len(singles) if cross else min(1, len(singles)))):
        for chosen in combinations(singles, size):
            found += [together(base, rows) for rows in product(*chosen)]
    found += [Variant(path.stem, path, settings, (), given) for path in others]
    check(found)
    return found


def single(base: Variant, swap: Swap) -> Iterator[Variant]:
    """The rows of one swap; the base's own value makes none."""
    for name, what in swap.rows():
        made = Variant(name, base.path, (*base.settings, what), (), base.plugins)
        if meaning(made.recipe) != meaning(base.recipe):
            yield made


def together(base: Variant, rows: tuple[Variant, ...]) -> Variant:
    """The row that sets what all of these do."""
    if len(rows) == 1:
        return rows[0]
    names = tuple(row.name for row in rows)
    settings = tuple(what for row in rows for what in row.settings[len(base.settings) :])
    every = (*base.settings, *settings)
    return Variant(", ".join(names), base.path, every, names, base.plugins)


def meaning(recipe: Recipe) -> tuple[str, str]:
    """What a recipe trains: its model, and all beside it."""
    return recipe.hash, repr((recipe.tokenizer, recipe.data, recipe.train))


def check(found: Sequence[Variant]) -> None:
    """InputError if there is no row, or two of one name."""
    if len(found) == 1:
        message = "there is nothing to compare: every value is the base's own"
        raise InputError("nothing-to-compare", message, "--swap PATH=V1,V2, or a second recipe")
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            message = f"two rows are called {name!r}"
            raise InputError("same-name", message, "give each value once, and files other names")
