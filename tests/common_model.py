"""The library's own tests of every model class, on ours: ``python -m tests.common_model SOURCE``.

They ship in transformers' source distribution, which SOURCE names, unpacked.
"""

from __future__ import annotations

import importlib
import sys
import types
import unittest
import warnings
from pathlib import Path

import torch

from hf_bridge.model import RecipeForCausalLM, config_of
from tests.hf_folders import LLAMA, built

PAGE = LLAMA.replace("position: rope", "position: alibi").replace("repeat: 3", "repeat: 2")
PACKAGE = "transformers_tests"
STUBS = {  # siblings that do not ship
    "exporters.test_export": "ExportTesterMixin",
    "generation.test_utils": "GenerationTesterMixin",
}


def common(source: Path) -> types.ModuleType:
    """The module of the library's tests."""
    sys.modules[PACKAGE] = package(PACKAGE, [str(source / "tests")])
    for name, mixin in STUBS.items():
        above = f"{PACKAGE}.{name.partition('.')[0]}"
        sys.modules[above] = package(above, [])
        stub = types.ModuleType(f"{PACKAGE}.{name}")
        setattr(stub, mixin, type(mixin, (), {}))
        sys.modules[f"{PACKAGE}.{name}"] = stub
    return importlib.import_module(f"{PACKAGE}.test_modeling_common")


def package(name: str, path: list[str]) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__path__ = path
    return made


SKIPPED = {
    "attention_outputs": "attentions are not kept: no kernel that computes them gives them",
    "eager_matches_sdpa_inference": "there is no way to compute attention but the recipe's",
    "inputs_embeds": "the model reads ids: what stands before its first layers is the recipe's",
    "model_get_set_embeddings": "the embedding is a block of ours, which nothing replaces",
    "resize_": "a vocabulary is the recipe's, and is not resized behind its back",
    "model_base_model_prefix": "there is no body without a head",
    "generation_tester_mixin_inheritance": "its mixin does not ship; tests of ours generate",
}


class Tester:
    """What the library's tests ask of a model's own test file."""

    is_training = True
    batch_size, seq_length = 3, 7
    num_hidden_layers, hidden_size = 2, 16

    def prepare_config_and_inputs_for_common(self):
        ids = torch.randint(31, (3, 7))
        return config_of(built(PAGE)), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def suite(source: Path) -> unittest.TestSuite:
    def set_up(self):
        self.model_tester = Tester()

    def prepare(self, inputs, model_class, return_labels=False):
        return inputs | ({"labels": inputs["input_ids"]} if return_labels else {})

    body = {"all_model_classes": (RecipeForCausalLM,), "setUp": set_up, "has_attentions": False}
    body["_prepare_for_class"] = prepare
    mixin = common(source).ModelTesterMixin
    for name in dir(mixin):
        for part, reason in SKIPPED.items():
            if name.startswith(f"test_{part}"):
                body[name] = unittest.skip(reason)(getattr(mixin, name))
    case = type("RecipeForCausalLMTest", (mixin, unittest.TestCase), body)
    return unittest.defaultTestLoader.loadTestsFromTestCase(case)


def main(source: str) -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    result = unittest.TextTestRunner(verbosity=0, warnings="ignore").run(suite(Path(source)))
    failed = [*result.failures, *result.errors]
    for case, why in failed:
        print(f"FAILED {case.id().rpartition('.')[2]}: {why.strip().splitlines()[-1][:150]}")
    for case, why in sorted(result.skipped, key=lambda pair: pair[1]):
        print(f"skipped {case.id().rpartition('.')[2]}: {why}")
    passed = result.testsRun - len(failed) - len(result.skipped)
    print(f"{passed} passed, {len(failed)} failed, {len(result.skipped)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
