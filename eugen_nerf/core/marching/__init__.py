"""Rays through a grid of densities: which parts of them are worth a field's queries."""
