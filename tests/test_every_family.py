"""Every variant of every family, over and back, against the library's own classes."""

from __future__ import annotations

import copy
import json

import pytest

from hf_bridge.family_files import family_names, load_family
from hf_bridge.importing import import_config
from tests.families import examine, variants
from tests.hf_folders import make_tiny, needs_tool, tool

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


@needs_tool
@pytest.mark.parametrize("name", family_names())
def test_what_a_config_leaves_out_is_what_the_class_makes_of_it(name):
    family, cls = load_family(name), tool().CONFIG_MAPPING[name]
    partly = {"rope_parameters": {"rope_type": "default"}}
    for told in ({}, partly if "rope_parameters.rope_theta" in family.config else {}):
        whole = json.loads(json.dumps(cls(**copy.deepcopy(told)).to_dict()))
        assert import_config({"model_type": name} | told).text == import_config(whole).text
