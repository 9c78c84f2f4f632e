"""What the tests share: hypothesis profiles, one torch thread, the data beside the checkout."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

ROOT = Path(__file__).resolve().parent.parent

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the workers share out the cores

# No network: here, and by Python's own start-up in every process that a test starts.
OFFLINE = str(ROOT / "tests" / "offline")
os.environ["PYTHONPATH"] = os.pathsep.join([OFFLINE, os.environ.get("PYTHONPATH", "")])
if "tests.offline.sitecustomize" not in sys.modules:
    importlib.import_module("tests.offline.sitecustomize")

WITHOUT_EXPLAIN = [phase for phase in Phase if phase is not Phase.explain]  # it takes minutes
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=SLOW,
    phases=WITHOUT_EXPLAIN,
)
settings.register_profile(
    "prove",
    deadline=None,
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "1000")),
    suppress_health_check=SLOW,
    phases=WITHOUT_EXPLAIN,
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A library that took every core, as the Trainer's does, leaves the next test one thread."""
    yield
    if (torch := sys.modules.get("torch")) is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recipe_data() -> Path:
    """Data that is too large for the checkout: ``$RECIPE_DATA``, or ``shared/data`` beside it."""
    path = Path(os.environ.get("RECIPE_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"there is no {path}: set RECIPE_DATA to the folder of models and texts")
    return path


def pytest_terminal_summary(terminalreporter):
    """What each law was asked, and its largest error, wherever recipes were drawn for all laws."""
    asked, worst = Counter(), Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties if report.when == "call" else ():
            if name.startswith("law "):
                asked[name] += value[0]
                worst[name] = max(worst[name], value[1])
    if asked:
        terminalreporter.section("the laws: recipes asked about, largest error")
    for name, count in asked.items():
        terminalreporter.line(f"{name[4:].replace('_', ' '):<42}{count:>7,}  {worst[name]:.1e}")
