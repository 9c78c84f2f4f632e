"""The folder of an ablation: everything that came out, and what it came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from builder.ablation import tables
from builder.ablation.judge import Judgement
from builder.ablation.outcome import Ablation
from builder.ablation.report import page
from builder.errors import ResourceError
from builder.training.runs import ROOT, replace_text


def home_of(found: Ablation) -> Path:
    """The same for the same question, so that it is answered again in its place."""
    return ROOT / f"{found.base.variant.recipe.name}_ablation_{found.ask.hash}"


def write(found: Ablation, folder: Path | None = None) -> Path:
    """Write the results; ResourceError if the disk does not take them."""
    home = made(folder or home_of(found))
    replace_text(home / "results.jsonl", tables.jsonl(found))
    replace_text(home / "report.html", page(found))
    replace_text(home / "tables.md", tables.markdown(found))
    replace_text(home / "tables.tex", tables.latex(found))
    return home


def write_claims(judgements: Sequence[Judgement], folder: Path | None = None) -> Path:
    """Write what claims came to, in place of the last time; ResourceError as ``write``."""
    home = made(folder or ROOT / "claims")
    replace_text(home / "results.jsonl", tables.claims_jsonl(judgements))
    replace_text(home / "claims.md", tables.claims_markdown(judgements))
    return home


def made(home: Path) -> Path:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError("cannot-write", f"cannot write {home}: {error.strerror}") from error
    return home
