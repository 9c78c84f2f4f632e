"""What a command line or a page of claims may name; known without torch."""

from __future__ import annotations

MATCHES = ("none", "params", "active-params", "flops", "kv-bytes")  # what all rows may have alike
COUNTED = (  # what a model is, untrained
    "reach",
    "parameters",
    "active_parameters",
    "flops_per_token",
    "cache_bytes",
    "cache_bytes_per_token",
)
TOLERANCE = 0.01  # of the base's cost, that a row may be off if nothing is said
SEEDS = 3  # if nothing is said
