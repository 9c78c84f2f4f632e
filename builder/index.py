"""The signatures of all registered blocks, read from their source without importing it, or torch.

A signature is a schema (see ``blocks/registry.py``): positional-only parameters are values,
ordinary ones sizes, keyword-only ones options.  A test proves this reading equal to
``inspect.signature`` of the classes.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from blocks.kinds import KINDS, SLOTS
from builder.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
HOMES = ("blocks", "builder", "builder/training", "builder/probes")  # of what is registered
SAID = (
    "checks",
    "output",
    "lends",
    "gives",
    "reads",
    "inner",
    "outer",
)  # what a class says as plain literals


class Required(Enum):
    REQUIRED = "required"


REQUIRED = Required.REQUIRED


@dataclass(frozen=True)
class SizeDefault:
    """An expression of the block's other sizes: ``dim / heads``."""

    expression: str


@dataclass(frozen=True)
class MakerDefault:
    """A word that fills a slot, with its options."""

    word: str
    options: Mapping[str, Any] = field(default_factory=dict)


Base: TypeAlias = Literal[
    "int", "float", "bool", "str", "literal", "slot", "node", "list", "map", "reference"
]


@dataclass(frozen=True)
class Type:
    base: Base
    choices: tuple[str | int, ...] = ()  # of a literal
    slot: str = ""  # the kind of block that fills it; of a reference, what is read
    item: Type | None = None  # of a list, or of a map of names
    optional: bool = False  # may be none

    @property
    def refers(self) -> bool:
        """Whether it reads what a label names, in one place or in several."""
        return (self.item or self).base == "reference"

    def __str__(self) -> str:
        text = {
            "literal": " | ".join(map(str, self.choices)),
            "slot": f"<{self.slot}>",
            "node": "<node>",
            "list": f"list of {self.item}",
            "map": f"{{name: {self.item}}}",
            "reference": "<label>",
        }.get(self.base, self.base)
        return f"none | {text}" if self.optional else text


@dataclass(frozen=True)
class Parameter:
    name: str
    role: Literal["value", "size", "option"]
    type: Type
    default: Any = REQUIRED  # or a plain value, a SizeDefault, a MakerDefault


@dataclass(frozen=True)
class Entry:
    """A registered class: its word, and what may be written under it."""

    word: str
    kind: str
    parameters: tuple[Parameter, ...]
    doc: str
    path: Path
    line: int
    qualname: str
    checks: Mapping[str, str] = field(default_factory=dict)
    output: str | None = None
    lends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gives: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # sizes by other names
    inner: str | None = None  # the width that a joiner's body meets, if not its own
    outer: str | None = None  # the width that a leaf gives, if not its own
    calls: bool = False  # its forward asks for the call: positions, documents, padding

    @property
    def namespace(self) -> str:
        return KINDS[self.kind].namespace

    @property
    def place(self) -> str:
        """Its file and line; ours from the root of the program."""
        own = self.path.is_relative_to(ROOT)
        return f"{self.path.relative_to(ROOT) if own else self.path}:{self.line}"

    @property
    def joins(self) -> bool:
        """Whether it is a way round a branch: a node stands under its word, its options beside."""
        return self.kind == "joiner"

    @cached_property
    def value(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if p.role == "value")

    @cached_property
    def sizes(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if p.role == "size")

    @cached_property
    def options(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if p.role == "option")

    def parameter(self, name: str) -> Parameter:
        """A parameter by name.  KeyError if there is none."""
        found = next((p for p in self.parameters if p.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    @property
    def summary(self) -> str:
        """The docstring's first paragraph, in one line."""
        return " ".join(re.split(r"\n\s*\n|Shapes:|Source:", self.doc)[0].split())

    @property
    def source(self) -> str:
        """The paper, by the docstring's own word for it."""
        return " ".join(self.doc.partition("Source:")[2].partition("\n\n")[0].split())


@dataclass(frozen=True)
class Index:
    entries: Mapping[tuple[str, str], Entry]  # by namespace and word

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    @property
    def kinds(self) -> dict[str, tuple[Entry, ...]]:
        """The entries of each kind that has any, in the order of ``blocks/kinds.py``."""
        by_kind = {kind: tuple(entry for entry in self if entry.kind == kind) for kind in KINDS}
        return {kind: entries for kind, entries in by_kind.items() if entries}

    def node(self, word: str) -> Entry:
        """A leaf.  KeyError if the word is not among ``words("node")``."""
        return self.entries["node", word]

    def filler(self, kind: str, word: str) -> Entry:
        """What fills a slot of this kind; a norm, say, is both a node and a filler.

        KeyError if the word is not among ``words(kind)``.
        """
        entry = self.entries[KINDS[kind].namespace, word]
        if kind not in (entry.kind, entry.namespace):
            raise KeyError(word)
        return entry

    def words(self, namespace: str) -> list[str]:
        """The words of a namespace (``node``), or of one kind (``norm``, ``mask``)."""
        return self._words.get(namespace, [])

    @cached_property
    def _words(self) -> dict[str, list[str]]:
        names = {name for entry in self for name in (entry.namespace, entry.kind)}
        return {n: sorted(e.word for e in self if n in (e.namespace, e.kind)) for n in names}

    def named(self, word: str) -> list[Entry]:
        """Every entry of this word, in whatever namespace."""
        return [entry for entry in self if entry.word == word]

    def describe(self, entry: Entry) -> str:
        """All that ``list WORD`` tells."""
        doc = inspect.cleandoc(entry.doc)
        rows = [(p.name, p.role, str(p.type), _written(p.default)) for p in entry.parameters]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join(f"{c:<{w}}" for c, w in zip(r, widths, strict=True)).rstrip() for r in rows
        ]
        takes = [f"\n  {row}" for row in table] or ["\n  takes nothing"]
        fills = [
            f"\n  {p.name}: {', '.join(self.words(p.type.slot))}"
            for p in entry.parameters
            if p.type.base == "slot"
        ]
        checks = [f"\n  {check}" for check in entry.checks]
        return "".join(
            [f"{entry.word}: {entry.kind}, {entry.place}\n\n{_indented(doc)}\n", *takes]
            + (["\n\n  what fills its slots", *fills] if fills else [])
            + (["\n\n  what must hold", *checks] if checks else [])
        )


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word that was probably meant."""
    return _nearest(word, tuple(words))


@lru_cache(1024)  # one slip may be read in every layer
def _nearest(word: str, words: tuple[str, ...]) -> str | None:
    from difflib import get_close_matches  # only a mistake pays for it

    return next(iter(get_close_matches(word, words, n=1)), None)


def sources() -> list[Path]:
    """Every file that may register something: all that a model and its training are computed by."""
    return sorted(path for home in HOMES for path in ROOT.glob(f"{home}/*.py"))


def load_index(plugins: Sequence[Path] = ()) -> Index:
    """Every registered class of ``blocks/``, ``builder/`` and the plug-ins."""
    return _load_index(tuple(dict.fromkeys(plugin.resolve() for plugin in plugins)))


@cache  # the files of a process do not change under it
def _load_index(plugins: tuple[Path, ...]) -> Index:
    entries: dict[tuple[str, str], Entry] = {}
    for path in dict.fromkeys([*sources(), *plugins]):
        for entry in _entries(path):
            first = entries.setdefault((entry.namespace, entry.word), entry)
            if first is not entry:
                place = f"{first.path}:{first.line}"
                raise _bad(path, entry.line, f"{entry.word!r} is already registered, at {place}")
    return Index(entries)


def _entries(path: Path) -> Iterator[Entry]:
    try:
        text = path.read_text("utf-8")
        if "@register(" not in text:
            return
        module = ast.parse(text, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("bad-plugin", f"cannot read {str(path)!r}: {error}") from None
    except (SyntaxError, ValueError) as error:
        raise _bad(path, getattr(error, "lineno", None) or 1, f"not Python: {error}") from None
    yield from _Module(path, module).entries()


def _bad(path: Path, line: int, message: str) -> InputError:
    return InputError("bad-plugin", f"{path}:{line}: {message}")


def _reading(parameter: Parameter, port: str) -> Parameter:
    """A reference says what it reads of the node that a label names."""
    type = parameter.type
    if not type.refers:
        return parameter
    if type.item is None:
        return replace(parameter, type=replace(type, slot=port))
    return replace(parameter, type=replace(type, item=replace(type.item, slot=port)))


class _Module:
    """One file's classes, and the names that its signatures use."""

    def __init__(self, path: Path, module: ast.Module) -> None:
        self.path = path
        self.classes = {s.name: s for s in module.body if isinstance(s, ast.ClassDef)}
        self.names = dict(self.assigned(module.body))

    def assigned(self, body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
        for statement in body:
            match statement:
                case ast.Assign(targets=[ast.Name(name)], value=value):
                    yield name, value
                case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value):
                    yield name, value

    def entries(self) -> Iterator[Entry]:
        for cls in self.classes.values():
            for decorator in cls.decorator_list:
                match decorator:
                    case ast.Call(func=ast.Name("register")):
                        yield self.entry(cls, decorator)

    def entry(self, cls: ast.ClassDef, decorator: ast.Call) -> Entry:
        match decorator:
            case ast.Call(
                args=[ast.Constant(str(word))],
                keywords=[ast.keyword(arg="kind", value=ast.Constant(str(kind)))],
            ):
                pass
            case _:
                raise self.bad(
                    decorator, 'write @register("word", kind="kind"), with plain strings'
                )
        if kind not in KINDS:
            raise self.bad(decorator, f"there is no kind {kind!r}; kinds: {', '.join(KINDS)}")
        said = {
            name: value
            for base in reversed(self.line(cls))
            for name, value in self.assigned(base.body)
        }
        told = {name: self.literal(said[name]) for name in SAID if name in said}
        ports = told.pop("reads", {})
        return Entry(
            word,
            kind,
            tuple(_reading(p, ports.get(p.name, "stream")) for p in self.parameters(cls)),
            ast.get_docstring(cls) or "",
            self.path,
            cls.lineno,
            cls.name,
            calls=any("call" in names for names in self.forwards(cls)),
            **told,
        )

    def forwards(self, cls: ast.ClassDef) -> Iterator[list[str]]:
        """What each ``forward`` of the class and its bases takes."""
        for base in self.line(cls):
            for statement in base.body:
                if isinstance(statement, ast.FunctionDef) and statement.name == "forward":
                    yield [arg.arg for arg in statement.args.args]

    def bad(self, node: ast.expr | ast.stmt, message: str) -> InputError:
        return _bad(self.path, node.lineno, message)

    def line(self, cls: ast.ClassDef) -> list[ast.ClassDef]:
        """The class and its bases in the same file, nearest first."""
        line = [cls]
        for base in cls.bases:
            if isinstance(base, ast.Name) and base.id in self.classes:
                line += self.line(self.classes[base.id])
        return line

    def parameters(self, cls: ast.ClassDef) -> Iterator[Parameter]:
        line = self.line(cls)
        inits = (
            statement
            for base in line
            for statement in base.body
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__"
        )
        if init := next(inits, None):
            yield from self.signature(init.args)
        elif any("dataclass" in ast.unparse(decorator) for decorator in cls.decorator_list):
            yield from self.fields(line)

    def signature(self, args: ast.arguments) -> Iterator[Parameter]:
        ordinary = [*args.posonlyargs, *args.args]
        free = len(ordinary) - len(args.defaults)
        for place, arg in enumerate(ordinary[1:], 1):  # after self
            default = args.defaults[place - free] if place >= free else None
            yield self.parameter(arg, "value" if place < len(args.posonlyargs) else "size", default)
        for arg, option in zip(args.kwonlyargs, args.kw_defaults, strict=True):
            yield self.parameter(arg, "option", option)
        if extra := args.vararg or args.kwarg:
            raise _bad(
                self.path, extra.lineno, f"{extra.arg!r} takes anything; name each parameter"
            )

    def fields(self, line: Sequence[ast.ClassDef]) -> Iterator[Parameter]:
        """The fields of a dataclass, its bases' first, are all options."""
        for base in reversed(line):
            for statement in base.body:
                match statement:
                    case ast.AnnAssign(target=ast.Name(name), annotation=annotation, value=value):
                        if "ClassVar" not in ast.unparse(annotation):
                            yield self.option(name, annotation, value)

    def option(self, name: str, annotation: ast.expr, default: ast.expr | None) -> Parameter:
        return Parameter(name, "option", self.type(annotation), self.default(default))

    def parameter(
        self, arg: ast.arg, role: Literal["value", "size", "option"], default: ast.expr | None
    ) -> Parameter:
        if arg.annotation is None:
            raise _bad(self.path, arg.lineno, f"{arg.arg!r} has no type")
        return Parameter(arg.arg, role, self.type(arg.annotation), self.default(default))

    def type(self, annotation: ast.expr) -> Type:
        match annotation:
            case ast.Constant(str(text)):
                return self.type(ast.parse(text, mode="eval").body)
            case ast.Name("int" | "float" | "bool" | "str" as base):
                return Type(base)
            case ast.BinOp(left, ast.BitOr(), ast.Constant(None)):
                inner = self.type(left)
                return Type(inner.base, inner.choices, inner.slot, inner.item, optional=True)
            case ast.Subscript(ast.Name("Literal"), choices):
                return Type("literal", self.choices(choices))
            case ast.Subscript(ast.Name("tuple"), ast.Tuple([item, ast.Constant(value=value)])) if (
                value is ...
            ):
                return Type("list", item=self.type(item))
            case ast.Subscript(ast.Name("Mapping"), ast.Tuple([ast.Name("str"), item])):
                return Type("map", item=self.type(item))
            case ast.Subscript(ast.Name("Sequence" | "list"), item):
                return Type("list", item=self.type(item))
            case ast.Name("Node"):
                return Type("node")
            case ast.Name("Reference"):
                return Type("reference")
            case ast.Name("References"):
                return Type("list", item=Type("reference"))
            case ast.Name(name) if name.lower() in KINDS and name.istitle():
                return Type("slot", slot=name.lower())
            case ast.Name(name) if name in self.names:
                return self.type(self.names[name])
        known = "int, float, bool, str, Literal[...], tuple[X, ...], Mapping[str, X], X | None"
        known += ", Node, Reference"
        slots = ", ".join(kind.title() for kind in (*SLOTS, "norm"))
        message = (
            f"{ast.unparse(annotation)!r} is no type of a recipe; types: {known}; slots: {slots}"
        )
        raise self.bad(annotation, message)

    def choices(self, node: ast.expr) -> tuple[str | int, ...]:
        value = self.literal(node)
        return value if isinstance(value, tuple) else (value,)

    def default(self, node: ast.expr | None) -> Any:
        match node:
            case None:
                return REQUIRED
            case ast.Call(func=ast.Name("size"), args=[ast.Constant(str(text))], keywords=[]):
                return SizeDefault(text)
            case ast.Call(func=ast.Name("maker"), args=[ast.Constant(str(word))], keywords=options):
                return MakerDefault(word, {o.arg: self.literal(o.value) for o in options if o.arg})
        return self.literal(node)

    def literal(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in self.names:
            return self.literal(self.names[node.id])
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise self.bad(node, f"{ast.unparse(node)!r} is no plain value") from None


def _written(default: Any) -> str:
    match default:
        case Required():
            return "required"
        case SizeDefault(text):
            return f"= {text}"
        case MakerDefault(word, options):
            return f"= {word}" if not options else f"= {{{word}: {dict(options)}}}"
        case None:
            return "= none"
        case bool():
            return f"= {str(default).lower()}"
    return f"= {default}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
