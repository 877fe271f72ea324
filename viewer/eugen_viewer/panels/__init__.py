"""Panels of the viewer, and what they alone need."""
