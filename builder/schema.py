"""The recipe language as a JSON Schema, draft-07: what editors complete, explain and mark.

Made from the signatures that the checker reads.  It tells what can be told from one place of a
page.  Only the checker knows what follows from others: which blocks, labels and dims there are,
what an expression comes to, which types meet.

Its shape is one that editors answer well: one branch for each word that a map may hold, so that a
fault is marked where it is, and alternatives only where a word is chosen.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from blocks.kinds import KINDS, NODES
from builder.budget import MAX_TIMES
from builder.edit import SECTIONS
from builder.expand import STRUCTURE, TIMES
from builder.expand import WORD as A_WORD
from builder.expressions import ARITY, MAX_LENGTH
from builder.index import REQUIRED, Entry, Index, MakerDefault, Parameter, SizeDefault, Type
from builder.read import dump
from builder.recipe import ALONE
from builder.resolve import PAGE, VERSION

Schema: TypeAlias = dict[str, Any]

COMMENT = "The recipes of onepage-lm, by `python -m builder schema`."
NEEDED = ("vocab", "context")  # the dims of every page

WORD = A_WORD.pattern
NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
TERM = rf"(?:{WORD}\s*\([-(\s]*)*(?:{NUMBER}|{WORD})"
EXPRESSION = rf"[-(\s]*{TERM}(?:[)\s]*(?://|[-+*/,])[-(\s]*{TERM})*[)\s]*"  # brackets uncounted
LABELS = rf"[(\s]*{WORD}[)\s]*"
ONE_LABEL = rf"[(\s]*{WORD}\s*(?:\(.*\)\s*)?[)\s]*"

HOVER = {
    "recipe": "The version of the language.",
    "name": "What messages and run folders call the model.",
    "dims": "Sizes by name. A block reads those that it names, and expressions any. "
    "A list holds one number for each layer.",
    "blocks": "Nodes by name: written once, and used by their names.",
    "model": "The model: a node that takes tokens and gives logits.",
    "tokenizer": "How text becomes tokens.",
    "data": "What the model is trained on.",
    "train": "How it is trained.",
    "extends": "The recipe that this one changes: a path relative to this file.",
    "set": "What is changed, as `path: value`: for instance `attention.mask: {sliding_window: 64}`."
    " In a new node or filler, `it` is what stood there.",
    "none": "Nothing at all.",
    "residual": "`x + f(x)`, and nothing else: `residual: [rmsnorm, attention]`.",
    "parallel": "`f(x) + g(x) + ...`, of a list of branches.",
    "repeat": "N copies of a `block`, or of a whole `pattern`.",
    "layers": "Exactly N layers, from a `pattern` that comes again and again.",
    "like": "A copy of a block, changed by `set`.",
    "block": "What is repeated.",
    "pattern": "One entry a layer; `local*3` is three of them.",
    "share": "`true`: one set of weights for all copies. Or the blocks that share theirs.",
    "remainder": "`truncate`: the last round of the pattern may stop short.",
    "as": "A label. Further on, an option may read what this node gives: `{add: skip}`.",
}


def recipe_schema(index: Index) -> Schema:
    """The schema of a page, over everything that is registered."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": COMMENT,
        "type": "object",
        "if": {"required": ["extends"]},
        "then": _ref("variant"),
        "else": _ref("page"),
        "definitions": dict(_Language(index).definitions()),
    }


@dataclass(frozen=True)
class _Language:
    index: Index

    def definitions(self) -> Iterator[tuple[str, Schema]]:
        yield "expression", EXPRESSIONS
        yield "page", self.page()
        yield "variant", self.variant()
        yield "node", self.node()
        yield "entry", self.entry()
        yield "map", self.map()
        for word in STRUCTURE:
            yield f"node.{word}", _hover(word, self.structure(word))
        for entry in self.nodes():
            yield f"node.{entry.word}", _told(entry, self.leaf(entry))
        for kind, optional in self.slots():
            yield _slot(kind, optional), self.filler(kind, optional)
            for entry in self.fillers(kind):
                given = () if kind in SECTIONS.values() else [p.name for p in entry.sizes]
                yield f"{kind}.{entry.word}", _told(entry, self.under(entry, given))

    def nodes(self) -> list[Entry]:
        return [self.index.node(word) for word in self.index.words("node")]

    def fillers(self, kind: str) -> list[Entry]:
        return [self.index.filler(kind, word) for word in self.index.words(kind)]

    def slots(self) -> list[tuple[str, bool]]:
        """The kinds that fill a slot, of a block or of the page; and again where it may be none."""
        types = [p.type.item or p.type for entry in self.index for p in entry.parameters]
        found = {(type.slot, type.optional) for type in types}
        found |= {(kind, True) for kind in SECTIONS.values()}
        return [pair for kind in KINDS for pair in ((kind, False), (kind, True)) if pair in found]

    # The page

    def page(self) -> Schema:
        parts: dict[str, Schema] = {
            "recipe": {"const": VERSION},
            "name": {"type": "string"},
            "dims": self.dims(),
            "blocks": self.blocks(),
            "model": NODE,
            **{name: _of(_slot(kind, True), *FILLER) for name, kind in SECTIONS.items()},
            "train": self.under(self.index.filler("section", "train"), ()),
        }
        properties = {name: _hover(name, parts[name]) for name in PAGE}
        extends = {"extends": _hover("extends", {"type": "string"})}  # offered on an empty page
        return _map(properties | extends, required=["recipe", "dims", "model"])

    def variant(self) -> Schema:
        parts: dict[str, Schema] = {
            "recipe": {"const": VERSION},
            "name": {"type": "string"},
            "extends": {"type": "string"},
            "set": SETTINGS,
        }
        return _map({name: _hover(name, parts[name]) for name in ALONE}, required=["recipe"])

    def dims(self) -> Schema:
        readers: dict[str, list[str]] = {name: [] for name in NEEDED}
        for entry in self.nodes():
            for size in entry.sizes:
                readers.setdefault(size.name, []).append(f"`{entry.word}`")
        known = {
            name: (SIZE if name in NEEDED else DIM)
            | {"markdownDescription": f"A size of {', '.join(words)}."}
            for name, words in sorted(readers.items())
        }
        taken = {"pattern": _but("layers?", WORD), "patternErrorMessage": "this is no dim's name"}
        names = taken | {"doNotSuggest": True}
        return _map(known, required=list(NEEDED)) | {
            "propertyNames": names,
            "additionalProperties": DIM,
        }

    def blocks(self) -> Schema:
        names = self.name() | {"doNotSuggest": True}
        return {"type": "object", "propertyNames": names, "additionalProperties": NODE}

    def name(self) -> Schema:
        """A block's name: a word that the language does not have."""
        taken = "|".join([*STRUCTURE, *self.index.words("node"), "none", "it"])
        return _text(_but(taken, WORD), "this is no block's name")

    # Nodes

    def node(self) -> Schema:
        """A word, a list or a map; a word that nobody registered may be a block of the page."""
        alone = [entry for entry in self.nodes() if _stands_alone(entry)]
        block = {
            "pattern": self.name()["pattern"],
            "patternErrorMessage": "this is neither a block nor a word that stands alone",
        }
        return {
            "anyOf": [block, *_words(alone, none=True)],
            "minItems": 1,
            "items": NODE,
            "if": {"type": "object"},
            "then": _ref("map"),
        }

    def entry(self) -> Schema:
        """An entry of a pattern: a node, or ``name*5``."""
        counted = TIMES.pattern.replace("(.+)", EXPRESSION)
        alone = [entry for entry in self.nodes() if _stands_alone(entry)]
        return {
            "if": {"type": "string", "pattern": _whole(TIMES.pattern)},
            "then": {"pattern": _whole(counted), "patternErrorMessage": "write it as local*3"},
            "else": NODE,
            "anyOf": [{}, *_words(alone, none=True)],  # refuses nothing, and offers the words
        }

    def map(self) -> Schema:
        """A node with something under its word, or beside it."""
        words = [*STRUCTURE, *self.index.words("node")]
        branches = [{"if": {"required": [word]}, "then": self.headed(word)} for word in words]
        headless = _map({word: _ref(f"node.{word}") for word in words})
        headless |= {"minProperties": 1, "defaultSnippets": SNIPPETS}
        some = {"anyOf": [{"required": [word]} for word in words]}
        return {"allOf": [*branches, {"if": some, "else": headless}]}

    def headed(self, word: str) -> Schema:
        """A map with this word in it: what may stand beside it."""
        beside: dict[str, Schema] = {word: _ref(f"node.{word}"), "as": _hover("as", LABELLED)}
        if word in STRUCTURE:
            beside |= {name: _hover(name, self.structure(name)) for name in STRUCTURE[word]}
            return _map(beside) | RULES.get(word, {})
        entry = self.index.node(word)
        if not entry.joins:
            return _map(beside)
        options = self.options(entry, ("dim",))
        return _map(beside | options["properties"], options["required"])

    def structure(self, word: str) -> Schema:
        """What stands under a structural word, or under a word beside one."""
        match word:
            case "residual" | "block":
                return NODE
            case "parallel":
                return {"type": "array", "minItems": 1, "items": NODE}
            case "pattern":
                entry = _of("entry", "string", "object", "array")
                return {"type": "array", "minItems": 1, "items": entry}
            case "repeat" | "layers":
                return _number(whole=True, least=0, most=MAX_TIMES)
            case "like":
                return self.name()
            case "set":
                return SETTINGS
            case "share":
                several = {"items": self.name(), "minItems": 1}
                types = {"type": ["boolean", "string", "array"], "allOf": [several]}
                return self.name() | types
            case "remainder":
                return {"enum": ["truncate"]}
        raise AssertionError(f"what stands under {word!r}?")

    # What is registered

    def leaf(self, entry: Entry) -> Schema:
        """What stands under the word of a leaf, or of a joiner."""
        if entry.joins:
            return NODE
        return self.under(entry, () if NODES[entry.kind].reads == "tokens" else ("dim",))

    def under(self, entry: Entry, unasked: Container[str]) -> Schema:
        """Options in a map, or the one value."""
        options = self.options(entry, unasked)
        if len(entry.value) != 1:
            return _within(options)
        value = self.argument(entry.value[0])
        return {
            "anyOf": [value, {"type": "object"}],
            "if": {"type": "object"},
            "then": options,
        }

    def options(self, entry: Entry, unasked: Container[str]) -> Schema:
        asked = [p for p in entry.parameters if p.name not in unasked]
        return _map({p.name: self.argument(p) for p in asked}, _needed(entry))

    def argument(self, parameter: Parameter) -> Schema:
        """A parameter with its type and default, to hover over."""
        schema = dict(self.typed(parameter.type, size=parameter.role == "size"))
        told = f"`{parameter.type}`"
        if parameter.default is not REQUIRED:
            schema["default"] = _plain(parameter.default)
            told += f", by default `{dump(schema['default']).strip()}`"
        if parameter.role == "size":
            told += f"; a size, which dim `{parameter.name}` gives too"
        return schema | {"markdownDescription": told}

    def typed(self, type: Type, *, size: bool = False) -> Schema:
        """What may be written for a type."""
        match type.base:
            case "slot":
                return _of(_slot(type.slot, type.optional), *FILLER)
            case "node":
                return NODE
            case "reference":
                return _text(ONE_LABEL, "this is neither a label nor label(number)")
            case "list" if type.item is not None and type.item.base == "reference":
                return _text(LABELS, "this is no label")
            case "list":
                assert type.item is not None
                listed = {"type": "array", "items": self.typed(type.item)}
                return _or_none(listed, type.optional)
            case "map":
                assert type.item is not None
                named = {"type": "object", "additionalProperties": self.typed(type.item)}
                return _or_none(named, type.optional)
            case "int":
                return _or_none(_number(whole=True, least=1 if size else None), type.optional)
            case "float":
                return _or_none(_number(), type.optional)
            case "bool":
                return _or_none({"type": "boolean"}, type.optional)
            case "literal":
                return {"enum": [*type.choices, *["none"] * type.optional]}
            case "str":
                return {"type": "string"}

    def filler(self, kind: str, optional: bool) -> Schema:
        """What fills a slot: a word, or one word with its options."""
        entries = self.fillers(kind)
        alone = [entry for entry in entries if _stands_alone(entry)]
        others = [entry for entry in entries if not _stands_alone(entry)]
        legal = [*(e.word for e in alone), *(f"{{{e.word}: ...}}" for e in others)]
        message = f"this is no {kind}: {', '.join(legal + ['none'] * optional)}"
        filled = _map({entry.word: _ref(f"{kind}.{entry.word}") for entry in entries})
        filled |= {"minProperties": 1, "allOf": [{"maxProperties": 1}]}
        return {
            "anyOf": [
                {"pattern": "(?!)", "patternErrorMessage": message},
                *_words(alone, none=optional),
            ],
            "if": {"type": "object"},
            "then": filled,
            "defaultSnippets": [{"label": e.word, "body": {e.word: "$1"}} for e in others],
        }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _of(name: str, *types: str) -> Schema:
    """A definition and its types: an editor asks here what to insert."""
    return {"type": list(types), "allOf": [_ref(name)]}


def _slot(kind: str, optional: bool) -> str:
    return f"{kind}_or_none" if optional else kind


def _map(properties: dict[str, Schema], required: Iterable[str] = ()) -> Schema:
    """A map of these alone.  Its type is a list, as a lone one is told by the definition's name."""
    return {
        "type": ["object"],
        "properties": properties,
        "additionalProperties": False,
        "required": list(required),
    }


def _within(schema: Schema) -> Schema:
    """A map whose options are offered inside it, and not all inserted with its word."""
    return {"type": ["object"], "allOf": [schema]}


def _hover(word: str, schema: Schema) -> Schema:
    return {**schema, "description": HOVER[word], "markdownDescription": HOVER[word]}


def _told(entry: Entry, schema: Schema) -> Schema:
    """A schema with what a class says of itself."""
    return {**schema, "description": entry.summary, "markdownDescription": _page_of(entry)}


def _page_of(entry: Entry) -> str:
    doc = inspect.cleandoc(entry.doc)
    for mark in ("Shapes:", "Source:"):  # each a paragraph of its own in markdown
        doc = re.sub(rf"\n+{mark}", f"\n\n{mark}", doc)
    return f"**{entry.word}** ({entry.kind})\n\n{doc}"


def _words(entries: Iterable[Entry], none: bool) -> list[Schema]:
    """Bare words, each with its own hover."""
    words = [_told(entry, {"const": entry.word}) for entry in entries]
    return words + [_hover("none", {"const": "none"})] * none


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _but(words: str, pattern: str) -> str:
    return _whole(f"(?!(?:{words})$){pattern}")


def _text(pattern: str, message: str) -> Schema:
    return {"type": "string", "pattern": _whole(pattern), "patternErrorMessage": message}


def _number(*, whole: bool = False, least: int | None = None, most: int | None = None) -> Schema:
    """A number within limits, or an expression."""
    limits = {"minimum": least, "maximum": most}
    return {
        "type": ["integer" if whole else "number", "string"],
        **{name: limit for name, limit in limits.items() if limit is not None},
        "allOf": [_ref("expression")],
    }


def _or_none(schema: Schema, optional: bool) -> Schema:
    return {"anyOf": [schema, {"enum": ["none"]}]} if optional else schema


def _stands_alone(entry: Entry) -> bool:
    return not entry.joins and not _needed(entry)


def _needed(entry: Entry) -> list[str]:
    """What must be written; a size may come from the dims."""
    return [p.name for p in entry.parameters if p.default is REQUIRED and p.role != "size"]


def _plain(default: Any) -> Any:
    """A default as a page would have it."""
    match default:
        case SizeDefault(expression):
            return expression
        case MakerDefault(word, options):
            return {word: dict(options)} if options else word
        case None:
            return "none"
        case tuple():
            return list(default)
    return default


EXPRESSIONS = {
    "pattern": _whole(EXPRESSION),
    "patternErrorMessage": "this is neither a number nor an expression",
    "maxLength": MAX_LENGTH,
}
NODE = _of("node", "string", "object", "array")
FILLER = ("string", "object")
SIZE = _number(whole=True, least=1)
DIM = {
    "type": ["number", "string", "array"],
    "allOf": [_ref("expression"), {"items": _number()}],
}
LABELLED = _text(_but("|".join([*ARITY, "none"]), WORD), "this is no label")
SETTINGS: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["number", "string", "boolean", "object", "array"]},
}
RULES: dict[str, Schema] = {
    "repeat": {
        "if": {"required": ["block"]},
        "then": {"properties": {"pattern": False}},
        "else": {"required": ["pattern"], "errorMessage": "'repeat' takes a block or a pattern"},
    },
    "layers": {"required": ["pattern"]},
}
SNIPPETS = [
    {"label": "repeat a block", "body": {"repeat": "${1:4}", "block": "${2:decoder}"}},
    {
        "label": "repeat a pattern",
        "body": {"repeat": "${1:4}", "pattern": ["${2:local*3}", "full"]},
    },
    {"label": "like a block", "body": {"like": "${1:decoder}", "set": {"${2:path}": "${3:value}"}}},
]
