"""Conversion recipes: each file says how one dense layer becomes a cheaper one; `registry.py` lists them by name."""
