"""Measurements of the viewer without a browser."""
