"""Every variant of every family, over and back, against the library's own classes."""

from __future__ import annotations

import pytest

from hf_bridge.family import family_names
from tests.families import examine, variants
from tests.hf_folders import make_tiny, needs_tool

FIRST = {"gpt2", "llama", "mixtral"}  # what `make check` looks at


@needs_tool
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FIRST else pytest.mark.slow) for n in family_names()],
)
def test_a_family_is_carried_over_and_back(name, tmp_path):
    for _, variant in variants([name]):
        folder = make_tiny(name, variant, tmp_path / f"theirs-{variant}")
        found = examine(name, folder, tmp_path / f"ours-{variant}")
        assert not found.wrong, (variant, *found.wrong)
