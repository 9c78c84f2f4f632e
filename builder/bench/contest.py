"""One contender at one case, in a process and an environment of its own.

It is run by its path, with a contender's name, the case as JSON, and the time at which the process
was started.  It tells when its first step is done; then, for each number that it reads, it takes so
many steps, and tells the seconds; and at the end how much memory it took at most.  Nothing of this
project is imported but where it is the contender: what is others' is read by its path too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

Case = dict[str, Any]
Step = Callable[[], Any]
PEERS = Path(__file__).resolve().parents[2] / "hf_bridge" / "peers.py"


@cache
def peers() -> Any:
    """The module that makes the others' steps."""
    spec: Any = importlib.util.spec_from_file_location("peers", PEERS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(case: Case, **way: Any) -> Step:
    """A step of this project's, in one of its ways."""
    import torch

    from builder.devices import settle
    from builder.recipe import load_recipe

    settle()
    recipe, ids = load_recipe(case["page"]), peers().drawn(case)
    if case["work"] in ("train", "start"):
        from builder.training.compiling import Compiler, compile_layers
        from builder.training.corpus import Batch
        from builder.training.prepare import assemble
        from builder.training.step import take_step
        from builder.training.world import ALONE

        training = assemble(recipe, ALONE)
        if way:
            compile_layers(training.model, Compiler(lambda _: None))
        batch = Batch(ids, ids.roll(-1, 1))
        return lambda: take_step(training, 0, batch)
    from builder.model import build

    model = build(recipe).eval()
    if case["work"] == "prefill":
        return lambda: model(ids, cache=model.new_cache(len(ids)), last=True)
    return torch.no_grad()(lambda: model.generate(ids, case["new"], temperature=0, **way))


def nothing(case: Case) -> Step:
    """What no contender can be faster than."""
    import torch

    return lambda: torch.zeros(1)


def machine(case: Case) -> Step:
    """The most that this machine does: operations and bytes a second."""
    import torch

    square, tall = torch.randn(1024, 1024), torch.randn(1 << 16, 1024)  # 256 MB
    row = torch.randn(1024)

    def limits() -> dict[str, float]:
        product = least(lambda: square @ square, 8)
        read = least(lambda: torch.mv(tall, row), 3)
        return {"operations": 2 * 1024**3 / product, "bytes": tall.nbytes / read}

    return limits


def least(act: Step, times: int) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return min(found)


CONTENDERS: dict[str, Callable[[Case], Step]] = {
    "transformers": lambda case: peers().transformers(case),
    "litgpt": lambda case: peers().litgpt(case),
    "x-transformers": lambda case: peers().x_transformers(case),
    "ours": ours,
    "ours, compiled": lambda case: ours(case, compile=True),
    "ours, int8": lambda case: ours(case, int8=True),
    "import torch": nothing,
    "machine": machine,
}


def main(name: str, case: Case, began: float) -> None:
    """Take steps as they are asked for, until no more is read."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def tell(**found: Any) -> None:
        print(json.dumps(found), file=out, flush=True)

    step = CONTENDERS[name](case)
    step()
    tell(first=time.time() - began)
    for line in sys.stdin:
        began, given = time.perf_counter(), None
        for _ in range(int(line)):
            given = step()
        seconds = time.perf_counter() - began
        tell(seconds=seconds, given=given if type(given) is dict else None)
    tell(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3]))
