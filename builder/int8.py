"""Products with matrices of small integers, by torch's own kernel for a CPU.

Each row of a matrix is rounded to 129 steps of its own, for the kernel adds two products in 16 bits
and more would not fit; the rows that it meets are rounded to 256 steps when they come.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

STEPS = 64  # to either side of 0
PARTS = ("shape", "packed", "offsets", "none", "scales", "bias")

LIBRARY: Any = torch.library.Library("onepage", "DEF")  # type: ignore[no-untyped-call]
LIBRARY.define(
    "int8_product(Tensor rows, Tensor shape, Tensor packed, Tensor offsets, Tensor none) -> Tensor"
)


@torch.library.impl(LIBRARY, "int8_product", "CPU")
def _product(rows: Tensor, shape: Tensor, packed: Tensor, offsets: Tensor, none: Tensor) -> Tensor:
    return torch.fbgemm_linear_int8_weight_fp32_activation(
        rows, shape, packed, offsets, 1.0, 0, none
    )


@torch.library.register_fake("onepage::int8_product", lib=LIBRARY)  # type: ignore[untyped-decorator]
def _given(rows: Tensor, shape: Tensor, packed: Tensor, offsets: Tensor, none: Tensor) -> Tensor:
    return rows.new_empty(len(rows), len(shape))


@cache
def _warn_once() -> None:
    """Let the kernel say what it says once in a process, of a package that is no dependency."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = torch.ones(1, 1, dtype=torch.int8)
        packed = torch.fbgemm_pack_quantized_matrix(one)
        _product(torch.zeros(1, 1), one, packed, one.sum(1, dtype=torch.int32), torch.zeros(1))


def rounded(matrix: Tensor, bias: Tensor | None) -> list[Tensor]:
    """A matrix (outputs, inputs) and its bias as the kernel reads them: ``PARTS``."""
    scales = matrix.abs().amax(1).clamp(min=1e-30) / STEPS
    whole = (matrix / scales[:, None]).round().to(torch.int8)
    offsets = whole.sum(1, dtype=torch.int32)
    _warn_once()
    packed = torch.fbgemm_pack_quantized_matrix(whole)
    none = torch.zeros(len(matrix))
    shape = whole[:1, :1].expand(*matrix.shape)  # all that is asked of the matrix itself
    return [shape, packed, offsets, none, scales, none if bias is None else bias]


def product(graph: Graph, rows: Node, parts: list[Node]) -> Node:
    """The product of rows and a matrix, in a graph whose inputs are its ``PARTS``."""
    *read, scales, bias = parts
    found = graph.call_function(torch.ops.onepage.int8_product.default, (rows, *read))
    scaled = graph.call_function(torch.ops.aten.mul.Tensor, (found, scales))
    return graph.call_function(torch.ops.aten.add.Tensor, (scaled, bias))
