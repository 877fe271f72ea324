"""Means over seeds, and published claims held against them."""
