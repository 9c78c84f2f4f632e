"""A recipe: a page with its base and its settings, resolved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from os.path import normpath
from pathlib import Path
from typing import Any

from builder.budget import MAX_FAULTS, MAX_NESTED, Budget
from builder.defaults import without_defaults, write_out
from builder.edit import Assignment, assign, put
from builder.errors import COMMAND_LINE, Finding, InputError, Mark, RecipeError, Source, applied
from builder.graph import Filler, Graph
from builder.index import Index, load_index
from builder.read import (
    Mapping,
    Scalar,
    dump,
    from_python,
    read_file,
    read_text,
    read_value,
    to_python,
)
from builder.resolve import Resolved, resolve, version_faults

ALONE = ("recipe", "name", "extends", "set")  # what a page that extends may hold


class Dims:
    """A recipe's dims, by attribute or by name: a number, or a tuple of one for each layer."""

    def __init__(self, numbers: MappingType[str, Any]) -> None:
        self._numbers = dict(numbers)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_numbers"][name]
        except KeyError:
            raise AttributeError(f"the recipe has no dim {name!r}") from None

    def __getitem__(self, name: str) -> Any:
        return self._numbers[name]

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def __repr__(self) -> str:
        return f"Dims({self._numbers})"


@dataclass(frozen=True)
class Recipe:
    """A page that resolves: its text as given, and what it means."""

    text: str
    page: Mapping = field(repr=False)  # its base and its settings worked in
    meaning: Resolved = field(repr=False)
    plugins: tuple[Path, ...] = ()
    _origin: _Origin | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.meaning.name

    @property
    def graph(self) -> Graph:
        return self.meaning.graph

    @property
    def dims(self) -> Dims:
        return Dims(self.meaning.dims)

    @property
    def tokenizer(self) -> Filler | None:
        return self.meaning.tokenizer

    @property
    def data(self) -> Filler | None:
        return self.meaning.data

    @property
    def train(self) -> Filler:
        return self.meaning.train

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return self.meaning.warnings

    @property
    def resolved(self) -> str:
        """The page as text that needs no other file, every default written out."""
        return dump(write_out(self.page, load_index(self.plugins)))

    @property
    def hash(self) -> str:
        """Of the graph: two spellings of one model have the same; an option at its default takes no
        part.
        """
        shown = repr(without_defaults(self.graph, load_index(self.plugins)))
        return hashlib.sha256(shown.encode()).hexdigest()[:12]

    def _repr_html_(self) -> str:
        """Its diagram, for a notebook."""
        from builder.drawing.svg import inline

        return inline(self)

    def set(self, path: str, value: object) -> Recipe:
        """The recipe with one value changed; its text is ``extends`` and ``set``.  RecipeError as
        for a file.
        """
        assert self._origin is not None
        new = from_python(value, f"<set {path}>")
        return _recipe(self._origin.and_set(Assignment(path, new, new.mark)), self.plugins)


@dataclass(frozen=True)
class _Origin:
    """A page as it was read, the folder that its base is relative to, and the settings on top."""

    raw: Mapping
    folder: Path
    path: Path | None = None
    settings: tuple[Assignment, ...] = ()

    def and_set(self, assignment: Assignment) -> _Origin:
        return replace(self, settings=(*self.settings, assignment))

    def text(self, page: Mapping) -> str:
        if not self.settings:
            return self.raw.mark.source.text
        if self.path is None:
            return dump(page)
        head = {"recipe": 1, "name": to_python(page["name"])} if "name" in page else {"recipe": 1}
        settings = {
            setting.path: to_python(setting.value)
            for setting in self.settings
            if setting.path != "name"
        }
        return dump({**head, "extends": str(self.path), "set": settings})


def load_recipe(
    source: Path | str | MappingType[str, Any],
    overrides: Sequence[str | Assignment] = (),
    plugins: Sequence[Path] = (),
) -> Recipe:
    """A recipe from a file, from text (it has a line break), or from the same page as dicts and
    lists.

    ``overrides`` are ``path=value`` as on the command line.  A relative path that is not here is
    looked for beside the installed package, so that ``recipes/llama.yaml`` is found everywhere.
    RecipeError carries every finding; InputError ``cannot-read`` if there is no such file.
    """
    if isinstance(source, MappingType):
        raw = from_python(source)
        if not isinstance(raw, Mapping):
            raise InputError("not-a-mapping", "a page is a map")
        origin = _Origin(raw, Path())
    elif isinstance(source, str) and "\n" in source:
        origin = _Origin(read_text(source, "<text>"), Path())
    else:
        path = find(Path(source))
        origin = _Origin(read_file(path), path.parent, path)
    for override in overrides:
        assignment = read_assignment(override) if isinstance(override, str) else override
        origin = origin.and_set(assignment)
    return _recipe(origin, tuple(plugins))


def find(path: Path) -> Path:
    """A recipe's path: as given, else beside the installed package."""
    beside = Path(__file__).parent.parent / path
    try:
        return beside if not path.exists() and not path.is_absolute() and beside.exists() else path
    except OSError:  # no name of a file: reading it says why
        return path


def read_assignment(text: str) -> Assignment:
    """``path=value``, the value in YAML flow.  InputError ``not-an-assignment`` where there is no
    equals sign.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise InputError(
            "not-an-assignment", f"{text!r} is not path=value", "for instance dims.heads=8"
        )
    source = Source(COMMAND_LINE, text)
    read = read_value(value, before=f"{path}=")
    return Assignment(path.strip(), read, Mark(source, 1, 1, len(path)))


def _recipe(origin: _Origin, plugins: tuple[Path, ...]) -> Recipe:
    name, index = origin.raw.mark.source.name, load_index(plugins)
    try:
        budget = Budget()
        page = _based(origin.raw, origin.folder, index, (), budget)
        page = _set(page, origin.settings, index, budget)
        meaning = resolve(page, index)
    except RecipeError as error:
        raise RecipeError(applied(error.findings, name)) from None
    meaning = replace(meaning, warnings=tuple(applied(meaning.warnings, name)))
    return Recipe(origin.text(page), page, meaning, plugins, origin)


def _real(path: Path) -> Path:
    """Where a path leads; the path itself if it leads nowhere, as reading it will say."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path


def _set(
    page: Mapping,
    settings: Iterable[Assignment],
    index: Index,
    budget: Budget,
    findings: Sequence[Finding] = (),
) -> Mapping:
    """The page with each setting made; RecipeError with the faults of them all, after these."""
    found = list(findings)
    for assignment in settings:
        try:
            page = assign(page, assignment, index, budget)
        except RecipeError as error:
            found += error.findings
        if len(found) > MAX_FAULTS:
            break
    if found:
        raise RecipeError(found)
    return page


def _based(
    page: Mapping, folder: Path, index: Index, chain: tuple[Path, ...], budget: Budget
) -> Mapping:
    """A page over its base's: the base's settings first, then its own, in written order."""
    extends, settings = page.get("extends"), page.get("set")
    if extends is None:
        return page
    findings = version_faults(page) + [
        Finding(
            "extends-and",
            f"{key.value!r} stands beside extends, where nothing is merged",
            key.mark,
            "set it by a path",
        )
        for key, _ in page
        if key.value not in ALONE
    ]
    if not isinstance(extends, Scalar) or not isinstance(extends.value, str):
        raise RecipeError([*findings, Finding("bad-value", "'extends' names a file", extends.mark)])
    path = find(Path(normpath(folder / extends.value)))
    if _real(path) in chain:
        raise RecipeError(
            [
                *findings,
                Finding(
                    "extends-cycle",
                    f"{extends.value!r} extends itself",
                    extends.mark,
                    "name another base",
                ),
            ]
        )
    try:
        raw = read_file(path)
    except InputError as error:
        help = "a base is named from the folder of the page that extends it"
        raise RecipeError(
            [*findings, Finding("cannot-read", error.message, extends.mark, help)]
        ) from None
    if len(chain) == MAX_NESTED:
        message = f"more than {MAX_NESTED} pages extend each other"
        help = "write the settings of some on one page"
        raise RecipeError([*findings, Finding("too-deep", message, extends.mark, help)])
    base = _based(raw, path.parent, index, (*chain, _real(path)), budget)
    if "name" in page:
        base = put(base, "name", page["name"])
    if settings is not None and not isinstance(settings, Mapping):
        findings.append(
            Finding("not-a-map", "'set' takes a map of paths and values", settings.mark)
        )
    entries = settings if isinstance(settings, Mapping) else ()
    own = (Assignment(str(key.value), value, key.mark) for key, value in entries)
    return _set(base, own, index, budget, findings)
