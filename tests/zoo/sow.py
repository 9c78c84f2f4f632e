"""``python tests/zoo/sow.py FILE ...``: each mutant that cosmic-ray makes of these, a JSON line.

It needs cosmic-ray alone, which so needs no place beside torch.  Left out is what cannot matter:
annotations (nobody evaluates them), decorators, what says the same as another mutant; and what
nobody slips into, which dies at its first number: to shift a sum, or to ask what a number is.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

STRANGE = ("RShift", "LShift", "BitOr", "BitAnd", "BitXor", "Pow", "Mod", "Invert", "Is", "IsNot")
Span = tuple[tuple[int, int], tuple[int, int]]  # from (line, column) to (line, column)


def mutants(source: str) -> Iterator[tuple[str, int, str]]:
    """Of a file's text: each operator's name, the line, and the new text."""
    idle = list(_idle(ast.parse(source)))
    seen = {ast.dump(ast.parse(source))}
    for name in operator_names():
        operator_class = get_operator(name)
        if operator_class.arguments() or _strange(name):  # or it asks for names of variables
            continue
        operator = operator_class()
        starts = [start for node in ast_nodes(get_ast(source)) for start, _ in _at(operator, node)]
        for occurrence, start in enumerate(starts):
            if any(first <= start < last for first, last in idle):
                continue
            text = mutate_code(source, operator, occurrence)
            meaning = _meaning(text)
            if meaning and meaning not in seen:
                seen.add(meaning)
                yield name, start[0], text


def _strange(name: str) -> bool:
    """Whether an operator becomes one of another family: `_Mul_LShift`, but not `_BitOr_BitAnd`."""
    *_, old, new = ("", *name.split("_"))
    return new in STRANGE and old not in STRANGE


def _at(operator, node):
    return operator.mutation_positions(node)


def _meaning(text: str | None) -> str:
    """The same for two texts that do the same; empty for one that is no Python."""
    try:
        return ast.dump(ast.parse(text or ""))
    except SyntaxError:
        return ""


def _idle(tree: ast.AST) -> Iterator[Span]:
    """Where annotations and decorators stand."""
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for part in [*parts, *getattr(node, "decorator_list", [])]:
            if isinstance(part, ast.expr):
                start = part.lineno, part.col_offset - (part not in parts)  # with its @
                yield start, (part.end_lineno or 0, part.end_col_offset or 0)


def main(paths: list[str]) -> None:
    for path in paths:
        for operator, line, text in mutants(Path(path).read_text("utf-8")):
            print(json.dumps({"file": path, "line": line, "operator": operator, "text": text}))


if __name__ == "__main__":
    main(sys.argv[1:])
