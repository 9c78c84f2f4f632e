"""Every recipe that ships; the pages of claims that stand among them are none."""

from __future__ import annotations

from tests.commands import ROOT

RECIPES = sorted(p for p in ROOT.glob("recipes/**/*.yaml") if p.parent.name != "claims")
