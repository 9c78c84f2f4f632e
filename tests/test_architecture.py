"""The house keeps its shape: imports point one way, names are ours, and functions fit a screen.

Run with ``-s`` to see the facts of each point of the rubric.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.index import REQUIRED, load_index

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"blocks": set(), "builder": {"blocks"}, "hf_bridge": {"blocks", "builder"}}  # may import
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
LONGEST = 60  # lines: what a screen shows
FOREIGN = ("hidden_size", "hidden_dim", "n_embd", "n_head", "n_layer", "num_attention_heads",
           "num_hidden_layers", "num_key_value_heads", "intermediate_size", "rms_norm_eps",
           "max_position_embeddings", "d_model")  # fmt: skip
SHAPELESS = ("utils", "util", "common", "helpers", "helper", "misc", "manager")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    """The packages that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef))


def length(node: ast.FunctionDef) -> int:
    """Lines of a function, without its docstring."""
    doc = node.body[0]
    is_doc = isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
    spent = (doc.end_lineno or 0) - doc.lineno + 1 if is_doc else 0
    return (node.end_lineno or 0) - node.lineno + 1 - spent


def loaded_by(*argv: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    code = (
        "import sys\nfrom builder.__main__ import main\n"
        f"main({list(argv)!r})\nprint('loaded', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("loaded ")[2].split())


# Imports


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    others = imported(path) & set(ROOMS) - {room}
    assert others <= ROOMS[room], f"{room} imports {others - ROOMS[room]}"


def test_blocks_import_torch_and_nothing_else():
    outside = {name for path in FILES if path.parent.name == "blocks" for name in imported(path)}
    assert outside - set(sys.stdlib_module_names) == {"torch", "blocks"}


def test_only_the_bridge_imports_transformers():
    users = {path.relative_to(ROOT).parts[0] for path in FILES if "transformers" in imported(path)}
    assert users <= {"hf_bridge"}


def test_only_the_laws_import_hypothesis():
    users = {name_of(path.parent) for path in FILES if "hypothesis" in imported(path)}
    assert users == {"builder/laws"}


def test_tests_and_runs_are_never_imported():
    assert not any({"tests", "runs"} & imported(path) for path in FILES)


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["list"],
        ["list", "attention"],
        ["validate", "recipes/llama.yaml"],
        ["diagram", "recipes/llama.yaml"],
        ["schema"],
    ],
)
def test_what_needs_no_model_loads_no_torch(argv):
    assert not {"torch", "transformers", "numpy"} & loaded_by(*argv)


# Names


def test_no_file_is_named_for_nothing():
    assert not [name_of(path) for path in FILES if path.stem in SHAPELESS]


@pytest.mark.parametrize("path", [p for p in FILES if "hf_bridge" not in p.parts], ids=name_of)
def test_other_people_s_names_live_in_the_bridge(path):
    found = [word for word in FOREIGN if re.search(rf"\b{word}\b", path.read_text("utf-8"))]
    assert not found


def test_other_people_s_names_are_in_no_recipe():
    text = "".join(path.read_text() for path in ROOT.glob("recipes/**/*.yaml"))
    assert not [word for word in FOREIGN if word in text]


def test_a_word_is_the_name_of_its_file_or_of_its_kind():
    """``glu`` is in ``blocks/glu.py``, and so would be ``glu_of_a_kind``; the small fillers of one
    slot share the slot's file.
    """
    for entry in load_index():
        if entry.path.parent.name == "blocks":
            home = entry.path.stem
            assert f"{entry.word}_".startswith(f"{home}_") or entry.kind == home, entry


def test_registered_words_leave_parameter_names_readable():
    for entry in load_index():
        assert not re.search(r"_\d+$|_before_|_after_|_around_", entry.word), entry.word


# Shape


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_fit_a_screen(path):
    long = {node.name: length(node) for node in functions(path) if length(node) > LONGEST}
    assert not long


@pytest.mark.parametrize(
    "path", [p for p in FILES if {"blocks", "builder"} & set(p.parts)], ids=name_of
)
def test_files_and_public_classes_say_what_they_are(path):
    module = tree(path)
    bare = [
        node.name
        for node in module.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and not is_plain(node)
        and (path.parent.name, node.name) not in (("verbs", "run"), ("verbs", "configure"))
    ]
    assert not bare


def is_plain(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """What its fields or its few lines say: a tree's class, a verb's two functions."""
    if isinstance(node, ast.ClassDef):
        return all(
            isinstance(part, ast.AnnAssign | ast.FunctionDef | ast.Assign) for part in node.body
        )
    return length(node) <= 12


def test_each_block_says_its_formula_or_shapes():
    for entry in load_index():
        if entry.namespace == "node":
            assert "Shapes:" in entry.doc, entry.word


# Facts


def test_facts_of_the_rubric():
    """Points 1, 5, 9 and 10 as numbers, for a reader to judge."""
    lengths = sorted(length(node) for path in FILES for node in functions(path))
    sizes = {path: len(path.read_text("utf-8").splitlines()) for path in FILES}
    blocks = [entry for entry in load_index() if entry.path.parent.name == "blocks"]
    mentions = {entry.word: mentioned(entry.word) for entry in blocks if len(entry.word) > 5}
    options = [p for entry in blocks for p in entry.options]
    print(f"1  words that files beside their own name: {named_elsewhere(mentions)}")
    print(f"5  options: {len(options)}, required: {sum(p.default is REQUIRED for p in options)}")
    print(f"9  functions: {len(lengths)}, median {lengths[len(lengths) // 2]}, ", end="")
    print(f"95% {lengths[len(lengths) * 95 // 100]}, longest {lengths[-1]} lines")
    print(f"9  files: {len(sizes)}, longest {max(sizes, key=sizes.get).name} {max(sizes.values())}")
    print(f"10 words: {len(blocks)}, in {len({entry.kind for entry in blocks})} kinds")
    assert lengths[len(lengths) // 2] <= 10


def mentioned(word: str) -> set[str]:
    """The Python files of blocks and builder that have a word in quotes."""
    rooms = (path for path in FILES if {"blocks", "builder"} & set(path.parts))
    return {path.name for path in rooms if f'"{word}"' in path.read_text("utf-8")}


def named_elsewhere(mentions: dict[str, set[str]]) -> dict[str, list[str]]:
    """Of each word, the files that name it beside the one that registers it."""
    own = {entry.word: entry.path.name for entry in load_index()}
    found = {word: sorted(files - {own[word]}) for word, files in mentions.items()}
    return {word: files for word, files in found.items() if files}
