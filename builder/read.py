"""YAML text -> values that know where they were written, and back to text.

Read by events rather than by nodes, so that a hostile page is left at the first node too many:
aliases that multiply, nesting without end, or a megabyte of commas cost what an honest page does.
Scalars are those of YAML 1.2: ``1e-4`` is a number, and ``no`` is a word.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from builder.errors import (
    COMMAND_LINE,
    Finding,
    InputError,
    Mark,
    RecipeError,
    Source,
    raise_all,
)

MAX_BYTES = 1_000_000
MAX_NODES = 10_000
MAX_DEPTH = 64

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NULL = re.compile(r"null|Null|NULL|~|")
BOOL = re.compile(r"(?P<true>true|True|TRUE)|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Scalar:
    """A word, a number, true, false or null.  ``plain`` was written without quotes.

    ``was`` is the place of what this one overrode, if it came by a path.
    """

    value: int | float | bool | str | None
    mark: Mark = field(compare=False, repr=False)
    plain: bool = field(default=True, compare=False, repr=False)
    was: Mark | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Sequence:
    items: tuple[Value, ...]
    mark: Mark = field(compare=False, repr=False)
    was: Mark | None = field(default=None, compare=False, repr=False)

    def __iter__(self) -> Iterator[Value]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Mapping:
    """Keys and values in the written order; no key comes twice."""

    entries: tuple[tuple[Scalar, Value], ...]
    mark: Mark = field(compare=False, repr=False)
    was: Mark | None = field(default=None, compare=False, repr=False)

    def __iter__(self) -> Iterator[tuple[Scalar, Value]]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, key: object) -> Value | None:
        return next((value for word, value in self.entries if word.value == key), None)

    def __contains__(self, key: object) -> bool:
        return any(word.value == key for word, _ in self.entries)

    def __getitem__(self, key: object) -> Value:
        for word, value in self.entries:
            if word.value == key:
                return value
        raise KeyError(key)


Value: TypeAlias = Scalar | Sequence | Mapping
Read: TypeAlias = tuple[Any, Value]  # with the event that it began with
Pair: TypeAlias = tuple[Read, Read]


def read_file(path: Path, *, template: bool = False) -> Mapping:
    """A page from a file.  A ``template`` may also have keys that are no words, as its cases do."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError("cannot-read", f"cannot read {str(path)!r}: {reason}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) <= MAX_BYTES:
            raise _not_utf8(str(path), data, error) from None
        text = data.decode("utf-8", "replace")
    return _page(Source(str(path), text), len(data), template)


def read_text(text: str, name: str, *, template: bool = False) -> Mapping:
    """A page from text; ``name`` is what messages call it."""
    return _page(Source(name, text), len(text), template)


def read_value(text: str, name: str = COMMAND_LINE, before: str = "") -> Value:
    """One value: a word, a number, an expression, or a flow map or list.

    ``before`` stands before it on its line (the path and its equals sign), and is quoted with it.
    """
    value = _compose(Source(name, text), len(text), template=False, before=before)
    if value is None:
        mark = Mark(Source(name, before + text), 1, len(before) + 1)
        raise RecipeError(
            [Finding("missing-value", "a value is missing", mark, "for nothing at all write none")]
        )
    return value


def from_python(obj: object, name: str = "<python>") -> Value:
    """A value from dicts, lists and scalars; it is read from flow text, which messages quote."""
    return read_value(flow(obj), name)


def to_python(value: Value) -> Any:
    """The dicts, lists and scalars that a value stands for."""
    match value:
        case Scalar():
            return value.value
        case Sequence():
            return [to_python(item) for item in value.items]
        case Mapping():
            return {key.value: to_python(item) for key, item in value.entries}


def _page(source: Source, size: int, template: bool) -> Mapping:
    value = _compose(source, size, template)
    if isinstance(value, Mapping):
        return value
    mark = value.mark if value else Mark(source, 1, 1)
    message = "a page is a map of keys" if value else "the page is empty"
    raise RecipeError([Finding("not-a-mapping", message, mark, "start it with 'recipe: 1'")])


def _not_utf8(name: str, data: bytes, error: UnicodeDecodeError) -> RecipeError:
    source = Source(name, data.decode("utf-8", "replace"))
    before = Source(name, data[: error.start].decode("utf-8")).lines
    mark = Mark(source, len(before), len(before[-1]) + 1)
    message = f"byte 0x{data[error.start]:02x} is not UTF-8"
    return RecipeError([Finding("not-utf8", message, mark, "save the file as UTF-8")])


def _compose(source: Source, size: int, template: bool, before: str = "") -> Value | None:
    if size > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES:,} bytes"
        raise RecipeError(
            [Finding("file-too-large", message, Mark(source, 1, 1), "a recipe is a page or two")]
        )
    text = source.text.removeprefix("\ufeff")
    source = Source(source.name, before + text)
    if bad := UNPRINTABLE.search(source.text):
        lines = Source("", source.text[: bad.start()]).lines
        mark = Mark(source, len(lines), len(lines[-1]) + 1)
        message = f"the character U+{ord(bad[0]):04X} is not allowed"
        raise RecipeError([Finding("yaml-syntax", message, mark, "delete it")])
    composer = _Composer(source, template, text, len(before))
    try:
        value = composer.document()
    except yaml.MarkedYAMLError as error:
        composer.findings.append(_syntax(composer, error))
        value = None
    raise_all(composer.findings)
    return value


PROBLEMS = {  # libyaml's own words, in ours, with what would be accepted
    "did not find expected ',' or '}'": (
        "a ',' or '}' is missing before this",
        "close the map with }",
    ),
    "did not find expected ',' or ']'": (
        "a ',' or ']' is missing before this",
        "close the list with ]",
    ),
    "did not find expected key": (
        "this is neither a key nor inside the value before it",
        "indent it as the keys above it",
    ),
    "did not find expected '-' indicator": (
        "this is no item of the list above it",
        "start it with '- ' under the others, or indent it further",
    ),
    "found unexpected end of stream": ("the page ends inside a quote", "close the quote"),
    "could not find expected ':'": ("a ': ' is missing after a key", "write key: value"),
    "mapping values are not allowed in this context": (
        "a second ': ' on one line",
        "put a map inside a line in braces, {key: value}, and a text that holds ': ' in quotes",
    ),
    "block sequence entries are not allowed in this context": (
        "a list in lines cannot start here",
        "start it on a line of its own, or write [...]",
    ),
}
PARTS = {  # what was open
    "while parsing a flow mapping": "the map",
    "while parsing a flow sequence": "the list",
    "while parsing a block mapping": "the map",
    "while parsing a block collection": "the list",
    "while scanning a quoted scalar": "the quote",
    "while scanning a simple key": "the key",
}


def _syntax(composer: _Composer, error: yaml.MarkedYAMLError) -> Finding:
    place: Any = error.problem_mark or error.context_mark
    source, began = composer.source, error.context_mark
    mark = Mark(source, place.line + 1, composer.column(place))
    line = source.lines[mark.line - 1] if mark.line <= len(source.lines) else ""
    problem = error.problem or "this is not YAML"
    if "maximum nesting" in problem:
        help = "name the inner part, as a block"
        return Finding("too-deep", f"values are nested more than {MAX_DEPTH} deep", mark, help)
    problem, help = PROBLEMS.get(problem, (problem, ""))
    if (
        "\t" in line[: len(line) - len(line.lstrip())]
        or line[mark.column - 1 : mark.column] == "\t"
    ):
        problem, help = "a tab where YAML wants spaces", "indent with spaces"
    elif "cannot start any token" in problem:
        problem, help = f"a value cannot start with {mark.text!r}", "put the value in quotes"
    if began is None or (began.line, began.column) == (place.line, place.column):
        return Finding("yaml-syntax", problem, mark, help)
    context = error.context or "this"
    part = PARTS.get(context, context)
    note = f"{part} starts at line {began.line + 1}, column {composer.column(began)}"
    return Finding("yaml-syntax", problem, mark, help, (note,))


class _Composer:
    """Builds the one value of a text from its events, and collects what is wrong with it."""

    def __init__(self, source: Source, template: bool, text: str, before: int) -> None:
        self.source, self.before = source, before  # the text, and what is quoted before it
        self.template = template
        self.findings: list[Finding] = []
        self.events: Iterator[Any] = yaml.parse(text, Loader=Loader)
        self.anchors: dict[
            str, tuple[Value, int, int] | None
        ] = {}  # value, nodes, height; None while it is open
        self.nodes = 0
        self.deepest = 0

    def document(self) -> Value | None:
        next(self.events)  # the stream starts
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        if event.version or event.tags:
            self.find("yaml-tag", "a '%' directive has no meaning here", event, "delete the line")
        value = self.node(next(self.events), 0)
        next(self.events)  # the document ends
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self.find("yaml-syntax", "a second document starts here", event, "one page a file")
        return value

    def find(self, code: str, message: str, at: Any, help: str = "", *notes: str) -> None:
        mark = at if isinstance(at, Mark) else self.mark(at)
        self.findings.append(Finding(code, message, mark, help, notes))

    def stop(self, code: str, message: str, event: Any, help: str = "") -> RecipeError:
        self.find(code, message, event, help)
        return RecipeError(self.findings)

    def mark(self, event: Any) -> Mark:
        start, end = event.start_mark, event.end_mark
        line = self.source.lines[start.line] if start.line < len(self.source.lines) else ""
        stop = self.column(end) if end.line == start.line else len(line.rstrip()) + 1
        column = self.column(start)
        return Mark(self.source, start.line + 1, column, max(1, stop - column))

    def column(self, place: Any) -> int:
        """A column from 1, as the line is quoted."""
        return int(place.column) + 1 + (0 if place.line else self.before)

    def node(self, event: Any, depth: int) -> Value:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        self.count(event, 1, depth)
        if event.tag is not None:
            self.refuse_tag(event)
        before, outer = self.nodes, self.deepest
        self.deepest = depth
        if event.anchor:
            self.anchors[event.anchor] = None
        value = self.value(event, depth)
        if event.anchor:
            self.anchors[event.anchor] = value, self.nodes - before + 1, self.deepest - depth
        self.deepest = max(outer, self.deepest)
        return value

    def refuse_tag(self, event: Any) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        mark = self.mark(event)
        if (written := mark.text.partition(" ")[0]).startswith("!"):
            mark = replace(mark, width=len(written))
        self.find("yaml-tag", f"the tag {tag!r} has no meaning here", mark, "delete it")

    def count(self, event: Any, nodes: int, depth: int) -> None:
        self.nodes += nodes
        self.deepest = max(self.deepest, depth)
        if self.nodes > MAX_NODES:
            raise self.stop(
                "too-many-nodes",
                f"the page holds more than {MAX_NODES:,} values",
                event,
                "say what recurs once, with repeat or a block",
            )
        if depth > MAX_DEPTH:
            message = f"values are nested more than {MAX_DEPTH} deep"
            raise self.stop("too-deep", message, event, "name the inner part, as a block")

    def alias(self, event: Any, depth: int) -> Value:
        if event.anchor not in self.anchors:
            names = ", ".join(sorted(self.anchors)[:10]) or "none"
            raise self.stop(
                "yaml-syntax",
                f"no anchor &{event.anchor} stands before this",
                event,
                f"anchors: {names}",
            )
        anchor = self.anchors[event.anchor]
        if anchor is None:
            message = f"*{event.anchor} stands inside what it names"
            raise self.stop("alias-cycle", message, event, "write out what it should hold")
        value, nodes, height = anchor
        self.count(event, nodes, depth + height)
        return value

    def value(self, event: Any, depth: int) -> Value:
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        children = []
        end = (
            yaml.SequenceEndEvent
            if isinstance(event, yaml.SequenceStartEvent)
            else yaml.MappingEndEvent
        )
        while not isinstance(child := next(self.events), end):
            children.append((child, self.node(child, depth + 1)))
        mark = self.mark_between(event, child)
        if end is yaml.SequenceEndEvent:
            if event.flow_style:
                self.refuse_split_items(children)
            return Sequence(tuple(value for _, value in children), mark)
        return self.mapping(
            list(zip(children[::2], children[1::2], strict=True)), mark, event.flow_style
        )

    def mark_between(self, start: Any, end: Any) -> Mark:
        """A collection's place: as far as it goes on its first line."""
        first = self.mark(start)
        line = self.source.lines[first.line - 1]
        same = end.end_mark.line + 1 == first.line
        stop = self.column(end.end_mark) if same else len(line.rstrip()) + 1
        return Mark(self.source, first.line, first.column, max(1, stop - first.column))

    def scalar(self, event: Any) -> Scalar:
        mark, text = self.mark(event), event.value
        if event.style:  # quoted, or a block of text
            return Scalar(text, mark, plain=False)
        if NULL.fullmatch(text):
            return Scalar(None, mark)
        if match := BOOL.fullmatch(text):
            return Scalar(bool(match["true"]), mark)
        if NOT_FINITE.fullmatch(text):
            self.find(
                "not-finite",
                f"{text} is not a finite number",
                mark,
                "write a finite number, such as 1e9",
            )
        elif INT.fullmatch(text) or FLOAT.fullmatch(text):
            return Scalar(self.number(text, mark), mark)
        return Scalar(text, mark)

    def number(self, text: str, mark: Mark) -> int | float:
        shown = text if len(text) <= 24 else text[:20] + "..."
        if INT.fullmatch(text):
            whole = int(text, 0 if text[:2] in ("0x", "0o") else 10) if len(text) < 80 else 2**64
            if abs(whole) < 2**63:
                return whole
            help = f"the largest is {2**63 - 1}; with a point or an exponent it is a float"
            self.find("number-too-large", f"{shown} does not fit in 64 bits", mark, help)
            return 0
        value = float(text)
        if math.isinf(value):
            help = "the largest is 1.7976931348623157e308"
            self.find("number-too-large", f"{shown} does not fit in a float", mark, help)
        elif value == 0 and re.search("[1-9]", re.split("[eE]", text)[0]):
            help = "write 0, or 5e-324, the least of all"
            self.find(
                "number-too-small", f"{shown} is nearer to zero than a float can be", mark, help
            )
        return value

    def mapping(self, pairs: list[Pair], mark: Mark, flow: bool) -> Mapping:
        if flow:
            pairs = self.refuse_split_values(pairs)
        entries: dict[object, tuple[Scalar, Value]] = {}
        for (event, key), (_, value) in pairs:
            word = self.key(event, key)
            if word is None:
                continue
            if (first := entries.get((type(word.value), word.value))) is not None:
                note = f"the first is at line {first[0].mark.line}, column {first[0].mark.column}"
                self.find(
                    "duplicate-key",
                    f"{word.value!r} comes twice in one map",
                    word.mark,
                    "keep one",
                    note,
                )
            else:
                entries[type(word.value), word.value] = word, value
        return Mapping(tuple(entries.values()), mark)

    def key(self, event: Any, key: Value) -> Scalar | None:
        if self.template:
            return key if isinstance(key, Scalar) else Scalar(flow(to_python(key)), key.mark)
        if not isinstance(key, Scalar):
            self.find(
                "key-not-a-word",
                "a key is one word, not a map or a list",
                key.mark,
                "write a key for each",
            )
        elif key.value == "<<" and key.plain:
            self.find(
                "key-not-a-word", "'<<' does not merge maps here", key.mark, "use 'like' with 'set'"
            )
        elif isinstance(key.value, str) and key.value.strip():
            return key
        else:
            shown = getattr(event, "value", key.value)
            self.find(
                "key-not-a-word",
                f"the key {shown!r} is not a word",
                key.mark,
                "put it in quotes if it is",
            )
        return None

    def refuse_split_values(self, pairs: list[Pair]) -> list[Pair]:
        """YAML splits ``{ff: ceil_to(dim, 32)}`` at the comma, and joins ``{a:4}``: never meant."""
        kept: list[Pair] = []
        split: list[str] = []  # the pieces of an expression that the commas cut
        for pair in pairs:
            (_, key), (blank, value) = pair
            text = _plain_text(key)
            if not _is_blank(blank, value) or text is None:
                split = [_plain_text(value) or ""]
                kept.append(pair)
            elif split and _open(", ".join(split)):
                split.append(text)
                if not _open(", ".join(split)):
                    self.find_split(kept[-1][1][1].mark, ", ".join(split))
            elif ":" in text:
                word, _, rest = text.partition(":")
                message = f"{text!r} is one word, as no space follows its colon"
                self.find("missing-space", message, key.mark, f"write {{{word}: {rest}}}")
            else:
                kept.append(pair)
        return kept

    def refuse_split_items(self, children: list[Read]) -> None:
        split, start = "", None
        for _, child in children:
            text = _plain_text(child)
            split = f"{split}, {text or ''}" if start else text or ""
            start = start or child
            if not _open(split) or text is None:
                if start is not child and text is not None:
                    self.find_split(start.mark, split)
                split, start = "", None

    def find_split(self, mark: Mark, expression: str) -> None:
        message = f"YAML ends the expression {expression!r} at its comma"
        self.find("unquoted-comma", message, mark, f'put it in quotes: "{expression}"')


def _plain_text(value: Value) -> str | None:
    if isinstance(value, Scalar) and value.plain and value.value is not None:
        return str(value.value)
    return None


def _is_blank(event: Any, value: Value) -> bool:
    return isinstance(value, Scalar) and value.value is None and getattr(event, "value", None) == ""


def _open(text: str) -> bool:
    return text.count("(") > text.count(")")


def dump(value: Value | object, width: int = 100) -> str:
    """Recipe YAML that reads back equal: blocks outside, flow inside where it fits the width."""
    if isinstance(value, Scalar | Sequence | Mapping):
        value = to_python(value)
    flow(value)  # refuses what YAML cannot hold
    if not _nests(value):
        return flow(value) + "\n"
    return "\n".join(_block(value, 0, width)) + "\n"


def _block(value: Any, level: int, width: int) -> list[str]:
    """The lines of a collection that is not empty, not indented."""
    lines: list[str] = []
    items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in items:
        head = "-" if key is None else f"{_scalar(key, flow=False)}:"
        if _fits(item, level + 1, width - 2 * level - len(head) - 1, in_list=key is None):
            lines.append(f"{head} {flow(item, inside=False)}")
        elif key is None:
            first, *rest = _block(item, level + 1, width)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        else:
            lines += [head, *(f"  {line}" for line in _block(item, level + 1, width))]
    return lines


def _fits(value: Any, level: int, width: int, *, in_list: bool) -> bool:
    if not _nests(value):
        return True
    inner = list(value.values() if isinstance(value, dict) else value)
    if in_list and isinstance(value, dict) and len(value) == 1:
        return False  # `- residual: [...]` rather than `- {residual: [...]}`
    if any(_nests(item) for item in inner) and (
        level == 1 or (level == 2 and not isinstance(value, dict))
    ):
        return False
    return len(flow(value)) <= width


def _nests(value: Any) -> bool:
    return isinstance(value, dict | list | tuple) and bool(value)


def flow(value: Any, depth: int = 0, *, inside: bool = True) -> str:
    if depth > MAX_DEPTH:
        raise InputError("too-deep", f"values are nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        pairs = (
            f"{_scalar(key, flow=True)}: {flow(item, depth + 1)}" for key, item in value.items()
        )
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item, depth + 1) for item in value) + "]"
    return _scalar(value, flow=inside)


def _scalar(value: Any, *, flow: bool) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= 2**63:
            raise InputError("number-too-large", "a recipe cannot hold an int beyond 64 bits")
        case int():
            return str(int(value))
        case float() if math.isfinite(value):  # `1.0e-05` is a number to readers of YAML 1.1 too
            return re.sub(r"^(-?\d+)e", r"\1.0e", repr(float(value)))
        case float():
            return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}[repr(value)]
        case str():
            return value if _is_plain(value, flow) else _quoted(value)
    raise InputError("not-a-value", f"a recipe cannot hold a {type(value).__name__}: {value!r:.40}")


def _is_plain(text: str, flow: bool) -> bool:
    """Whether a text reads back as itself without quotes."""
    if any(pattern.fullmatch(text) for pattern in (NULL, BOOL, INT, FLOAT, NOT_FINITE)):
        return False
    shape = r"(\w|[$._/(+]|-(?=[\w(]))[^:#,\[\]{}\s]*( +[^:#,\[\]{}\s]+)*"
    if not flow:
        shape = shape.replace(r",\[\]{}", "")
    return (
        bool(re.fullmatch(shape, text))
        and text.isprintable()
        and text.count("(") == text.count(")")
    )


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub(
        "[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]", lambda match: f"\\u{ord(match[0]):04x}", quoted
    )
