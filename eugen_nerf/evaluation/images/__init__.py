"""Rendered views and what they are scored against."""
