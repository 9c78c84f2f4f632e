"""A change of config.json is followed as the library's class follows it, or refused."""

from __future__ import annotations

import os

import pytest

from hf_bridge.family_files import family_names
from tests.config_fields import look
from tests.hf_folders import needs_tool

SAMPLE = int(os.environ.get("FIELDS_SAMPLE", "40"))  # one change of so many; 1 for all


@needs_tool
@pytest.mark.slow
@pytest.mark.parametrize("name", family_names())
def test_a_change_of_the_config_is_followed_or_refused(name):
    """A few of each family's; ``python -m tests.config_fields`` looks at all."""
    found = {str(change): what for change, what in look(name, 0, SAMPLE, sum(map(ord, name)))}
    assert found
    assert {"follows", "refused", "impossible"} >= set(found.values()), found
