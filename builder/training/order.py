"""The order of samples: a keyed permutation that is computed, never stored.

Where sample ``n`` of the endless stream lies is a function of (seed, n) alone: nothing of it is in
a checkpoint, and it depends on neither batch size, nor workers, nor the number of processes.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
ROUNDS = 6  # of the Feistel network; with fewer, small corpora are visibly ordered
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd


def places(numbers: Array, size: int, seed: int) -> Array:
    """Where each sample of the stream lies among ``size``: every epoch, each place once.

    Shapes: numbers ``(B,)``, from 0 on, to ``(B,)`` int64 below ``size``.
    """
    numbers = numbers.astype(np.uint64)
    total = np.uint64(size)
    keys = mixed(numbers // total + np.uint64(seed * GOLDEN % 2**64))
    return permuted(numbers % total, size, keys).astype(np.int64)


def permuted(index: Array, size: int, key: Array) -> Array:
    """Where a keyed permutation of ``range(size)`` sends each index; ``key`` is one number for
    each.

    A Feistel network permutes the next power of four; who lands outside walks on until inside
    (cycle walking).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    index = _feistel(index, half, key)
    while (outside := index >= size).any():
        index[outside] = _feistel(index[outside], half, key[outside])
    return index


def _feistel(index: Array, half: int, key: Array) -> Array:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = index >> shift, index & mask
    for number in range(1, ROUNDS + 1):
        left, right = right, left ^ (mixed(right + key * np.uint64(2 * number + 1)) & mask)
    found: Array = (left << shift) | right
    return found


def mixed(x: Array) -> Array:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): each bit of x moves each of the result."""
    x = x + np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Array = x ^ (x >> np.uint64(31))
    return found
