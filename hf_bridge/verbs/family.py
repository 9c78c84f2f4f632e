"""Check a family file against a folder: fields, tensors, the way back, and logits."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def configure(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    check = actions.add_parser("check", help="read the folder with the file, and compare")
    check.add_argument("file", metavar="FILE", help="a family file, or a family's name")
    check.add_argument("folder", type=Path, metavar="HF_DIR", help="a model of that family")


def run(args: Namespace) -> int:
    from hf_bridge.check import check_family

    outcomes = list(check_family(args.file, args.folder))
    for outcome in outcomes:
        print(f"{'ok' if outcome.ok else 'NO':2}  {outcome.subject}: {outcome.found}")
    return 0 if all(outcome.ok for outcome in outcomes) else 1
