"""Several copies of one module in one: each parameter bears them in front, ``(count, ...)``."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call


def stack(module: nn.Module, count: int) -> nn.Module:
    """The same module with room for ``count`` copies in front of every parameter."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            stacked = nn.Parameter(parameter.new_empty(count, *parameter.shape))
            stacked.__dict__.update(
                parameter.__dict__, stacked=True
            )  # drawn row by row, as each copy's own
            part.register_parameter(name, stacked)
    return module


def call_row(module: nn.Module, row: int | Tensor, x: Tensor) -> Tensor:
    """What one copy of a stacked module gives; a number in a tensor, (1,), is not looked at."""
    own = {
        name: parameter[row] if isinstance(row, int) else parameter.index_select(0, row)[0]
        for name, parameter in module.named_parameters()
    }
    given: Tensor = functional_call(module, own, (x,))
    return given
