"""What a few paired differences say: intervals, equivalence, and how many more would say more."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import mean, stdev

POWER = 0.8  # with which so many seeds would decide
MOST_SEEDS = 1000  # past which nobody waits
PRECISION = 1e-15


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences: its interval, and the chance of one so far from 0 if there
    were no difference.  With one pair nothing is known of the spread: the interval has no end.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    p: float


def paired(differences: Sequence[float], alpha: float) -> Paired:
    """Student's t interval of level ``1 - alpha``, and the two-sided test's p."""
    n, middle = len(differences), mean(differences)
    if n < 2:
        return Paired(n, middle, math.nan, -math.inf, math.inf, 1.0)
    sd = stdev(differences)
    error = sd / math.sqrt(n)
    reach = t_quantile(1 - alpha / 2, n - 1) * error
    p = 2 * (1 - t_cdf(abs(middle) / error, n - 1)) if error else float(middle == 0)
    return Paired(n, middle, sd, middle - reach, middle + reach, p)


def equivalence(differences: Sequence[float], margin: float) -> float:
    """The p of two one-sided tests that the mean lies within ``margin`` of 0.

    Source: Schuirmann 1987, doi:10.1007/BF01068419.
    """
    n, middle = len(differences), mean(differences)
    if n < 2:
        return 1.0
    room, error = margin - abs(middle), stdev(differences) / math.sqrt(n)
    if not error:
        return float(room <= 0)
    return 1 - t_cdf(room / error, n - 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Each p as large as it must be for all of them to be asked together.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    found, last = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        last = max(last, min(1.0, (len(ps) - rank) * ps[place]))
        found[place] = last
    return found


def seeds_needed(found: Paired, margin: float, alpha: float) -> int | None:
    """The fewest pairs with which, if mean and spread stay, a difference or equivalence would be
    found four times of five; None if it takes more than a thousand.
    """
    effect, room = abs(found.mean), margin - abs(found.mean)
    if math.isnan(found.sd) or not found.sd:
        return None

    def would_do(n: int) -> bool:
        for distance, level in ((effect, alpha / 2), (room, alpha)):
            shift = distance * math.sqrt(n) / found.sd
            if distance > 0 and t_cdf(shift - t_quantile(1 - level, n - 1), n - 1) >= POWER:
                return True
        return False

    n = 2 + bisect_left(range(2, MOST_SEEDS + 1), True, key=would_do)
    return n if n <= MOST_SEEDS else None


def proportion(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """The exact interval of a share, of level ``1 - alpha``.

    Source: Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    low = beta_quantile(alpha / 2, successes, n - successes + 1) if successes else 0.0
    high = beta_quantile(1 - alpha / 2, successes + 1, n - successes) if successes < n else 1.0
    return low, high


# Distributions


def t_cdf(t: float, freedom: int) -> float:
    """Student's distribution, by the incomplete beta function."""
    if math.isinf(t):
        return float(t > 0)
    tail = beta_cdf(freedom / (freedom + t * t), freedom / 2, 0.5) / 2
    return 1 - tail if t > 0 else tail


@lru_cache(4096)
def t_quantile(p: float, freedom: int) -> float:
    """Where Student's distribution reaches ``p``."""
    if p < 0.5:
        return -t_quantile(1 - p, freedom)
    high = 1.0
    while t_cdf(high, freedom) < p:
        high *= 2
    return bisected(lambda t: t_cdf(t, freedom) - p, 0.0, high)


def beta_quantile(p: float, a: float, b: float) -> float:
    return bisected(lambda x: beta_cdf(x, a, b) - p, 0.0, 1.0)


def bisected(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a growing function is 0."""
    while high - low > PRECISION * max(1.0, abs(low)):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if f(middle) >= 0 else (middle, high)
    return (low + high) / 2


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction.

    Source: Abramowitz & Stegun 1964, 26.5.8; evaluated as Lentz 1976 does.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the other end's fraction is short
        return 1 - beta_cdf(1 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(x) + b * math.log1p(-x)) / a
    return front * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for term in (even, odd):
            c, d = 1 + term / c, 1 / (1 + term * d)
            value *= c * d
        if abs(value - before) <= PRECISION * abs(value):
            break
    return value
