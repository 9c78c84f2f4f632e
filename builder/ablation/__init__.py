"""Variants of a recipe, compared as fairly as can be: the same cost, order, seeds, and tuning."""
