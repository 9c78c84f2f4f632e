from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
import time
import typing
from pathlib import Path

import pytest

from blocks import registry
from builder.__main__ import main
from builder.errors import InputError
from builder.index import (
    REQUIRED,
    ROOT,
    MakerDefault,
    Parameter,
    SizeDefault,
    Type,
    _Module,
    load_index,
    nearest,
)

CLASSES = registry.load()
OURS = [key for key, cls in CLASSES.items() if cls.__module__.startswith("blocks.")]

SAID = {"checks": {}, "output": None, "lends": {}, "inner": None, "outer": None}
PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar, Literal
from blocks.registry import register, Norm, Node, Reference, References, maker, size

EPS = 1e-5
Side = Literal["left", "right"]


class Base:
    output = "down"

    def __init__(self, factor: float, /, dim: int, ff: int = size("4 * dim"), *,
                 eps: float = EPS, side: Side = "left", norm: "Norm | None" = None,
                 body: Node = maker("glu", bias=True), steps: tuple[int, ...] = (1, 2),
                 add: Reference, mix: References | None = None) -> None:
        pass


@register("thing", kind="ffn")
class Thing(Base):
    """One line.

    Source: Nobody 2024,
    arXiv:1.
    """

    checks = {"dim > 0": "dim={dim}"}
    reads = {"mix": "values"}


@register("warm", kind="schedule")
@dataclass
class Warm:
    """A schedule. Source: folklore."""

    steps: int
    kind: ClassVar[str] = "x"
    floor: float = 0.1
'''


def plugin(tmp_path, text=PLUGIN):
    path = tmp_path / "plugin.py"
    path.write_text(text)
    return path


def by_inspect(cls):
    """The parameters of the imported class, by the roles that the registry gives them."""
    roles = {
        inspect.Parameter.POSITIONAL_ONLY: "value",
        inspect.Parameter.POSITIONAL_OR_KEYWORD: "option"
        if dataclasses.is_dataclass(cls)
        else "size",
        inspect.Parameter.KEYWORD_ONLY: "option",
    }
    if cls.__init__ is object.__init__ or "__init__" not in "".join(
        name for base in cls.__mro__ if base.__module__ == cls.__module__ for name in vars(base)
    ):
        return []
    return [(p, roles[p.kind]) for p in inspect.signature(cls).parameters.values()]


def default_of(parameter):
    match parameter.default:
        case inspect.Parameter.empty:
            return REQUIRED
        case registry.Default(word, options):
            return MakerDefault(word, options)
        case registry.Size(text):
            return SizeDefault(text)
    return parameter.default


def type_of(hint):
    """An imported annotation; slots are all ``Maker`` once imported, so they say only that."""
    args = typing.get_args(hint)
    if type(None) in args:
        (inner,) = (arg for arg in args if arg is not type(None))
        return dataclasses.replace(type_of(inner), optional=True)
    if typing.get_origin(hint) is typing.Literal:
        return Type("literal", args)
    if typing.get_origin(hint) is not None:
        return Type("list", item=type_of(args[0]))
    if hint is registry.Maker:
        return Type("slot")
    return Type(hint.__name__)


def erased(type):
    return Type("slot", optional=type.optional) if type.base in ("slot", "node") else type


@pytest.mark.parametrize("key", OURS, ids="-".join)
def test_the_index_is_what_the_imported_class_says(key):
    cls, entry = CLASSES[key], load_index().entries[key]
    assert (entry.qualname, entry.kind, entry.word) == (cls.__qualname__, cls.kind, cls.word)
    assert entry.doc == inspect.cleandoc(cls.__doc__)
    for name, default in SAID.items():
        assert getattr(entry, name) == getattr(cls, name, default), name
    reads = {p.name: (p.type.item or p.type).slot for p in entry.parameters if p.type.refers}
    assert reads == dict.fromkeys(reads, "stream") | getattr(cls, "reads", {})
    real = by_inspect(cls)
    assert [(p.name, p.role) for p in entry.parameters] == [(p.name, role) for p, role in real]
    assert [p.default for p in entry.parameters] == [default_of(p) for p, _ in real]
    if real:
        hints = typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__)
        hinted = [type_of(hints[p.name]) for p, _ in real]
        assert [erased(p.type) for p in entry.parameters if not p.type.refers] == [
            hint for hint, p in zip(hinted, entry.parameters, strict=True) if not p.type.refers
        ]


def test_the_index_holds_every_block_and_nothing_else():
    indexed = {
        key for key, entry in load_index().entries.items() if entry.path.parent.name == "blocks"
    }
    assert indexed == set(OURS)


def test_every_slot_default_fills_its_slot():
    index = load_index()
    for entry in index:
        for parameter in entry.parameters:
            if isinstance(parameter.default, MakerDefault):
                word, slot = parameter.default.word, parameter.type.slot
                assert index.filler(slot, word) if slot else index.node(word), (entry.word, word)


def test_every_block_says_its_paper_and_its_line():
    for entry in load_index():
        assert entry.summary, entry.word
        assert f"class {entry.qualname}" in entry.path.read_text().splitlines()[entry.line - 1]


def test_the_index_takes_a_few_milliseconds():
    start = time.perf_counter()
    load_index()
    assert time.perf_counter() - start < 0.5  # 0.06 on an idle machine


def test_a_plug_in_is_read_as_the_blocks_are(tmp_path):
    index = load_index([plugin(tmp_path)])
    thing = index.node("thing")
    assert thing.parameters == (
        Parameter("factor", "value", Type("float")),
        Parameter("dim", "size", Type("int")),
        Parameter("ff", "size", Type("int"), SizeDefault("4 * dim")),
        Parameter("eps", "option", Type("float"), 1e-5),
        Parameter("side", "option", Type("literal", ("left", "right")), "left"),
        Parameter("norm", "option", Type("slot", slot="norm", optional=True), None),
        Parameter("body", "option", Type("node"), MakerDefault("glu", {"bias": True})),
        Parameter("steps", "option", Type("list", item=Type("int")), (1, 2)),
        Parameter("add", "option", Type("reference", slot="stream")),
        Parameter(
            "mix",
            "option",
            Type("list", item=Type("reference", slot="values"), optional=True),
            None,
        ),
    )
    assert (thing.summary, thing.source) == ("One line.", "Nobody 2024, arXiv:1.")
    assert (thing.output, thing.checks) == ("down", {"dim > 0": "dim={dim}"})
    assert [p.name for p in thing.value + thing.sizes] == ["factor", "dim", "ff"]
    warm = index.filler("schedule", "warm")
    assert warm.options == (
        Parameter("steps", "option", Type("int")),
        Parameter("floor", "option", Type("float"), 0.1),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@register(", "not Python"),
        ("@register('x', kind='nose')\nclass X: pass", "there is no kind 'nose'"),
        ("@register(X)\nclass X: pass", "with plain strings"),
        ("@register('glu', kind='ffn')\nclass X: pass", "already registered"),
        ("@register('x', kind='ffn')\nclass X:\n def __init__(self, a): 0", "'a' has no type"),
        (
            "@register('x', kind='ffn')\nclass X:\n def __init__(self, a: Tensor): 0",
            "'Tensor' is no type",
        ),
        (
            "@register('x', kind='ffn')\nclass X:\n def __init__(self, *a: int): 0",
            "name each parameter",
        ),
        (
            "@register('x', kind='ffn')\nclass X:\n def __init__(self, a: int = f()): 0",
            "no plain value",
        ),
    ],
)
def test_a_plug_in_that_cannot_be_read_is_refused_at_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        load_index([plugin(tmp_path, text)])
    assert caught.value.code == "bad-plugin"
    assert "plugin.py:" in caught.value.message


def test_a_plug_in_that_is_absent_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        load_index([tmp_path / "absent.py"])


def test_a_norm_is_a_node_and_fills_slots():
    index = load_index()
    assert index.node("rmsnorm") is index.filler("norm", "rmsnorm")
    with pytest.raises(KeyError):
        index.filler("norm", "glu")
    assert "rmsnorm" in index.words("node")
    assert "rmsnorm" in index.words("norm")
    assert "glu" not in index.words("norm")


def test_the_nearest_word_is_the_one_that_was_meant():
    assert nearest("slidng_window", load_index().words("mask")) == "sliding_window"
    assert nearest("zzz", ["rope"]) is None


def test_the_list_names_every_block_and_one_in_full(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(entry.word in shown for entry in load_index())
    for entry in load_index():
        assert main(["list", entry.word]) == 0
        shown = capsys.readouterr().out
        assert all(p.name in shown for p in entry.parameters)
        assert f"{entry.path.relative_to(ROOT)}:{entry.line}" in shown


def test_an_unknown_word_names_the_nearest_one(capsys):
    assert main(["list", "attentoin"]) == 2
    assert "did you mean 'attention'?" in capsys.readouterr().err


def test_help_and_list_load_neither_torch_nor_transformers():
    code = (
        "import sys; from builder.__main__ import main; main(['--help']); main(['list']);"
        "import builder.read, builder.expressions, builder.verbs.validate, builder.verbs.init;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_a_type_is_read_alike_bare_and_quoted():
    module = _Module(Path("x.py"), ast.parse(""))
    for text in ("int", "float | None", "tuple[float, ...]", "Mask"):
        assert module.type(ast.parse(text, mode="eval").body) == module.type(ast.Constant(text))
