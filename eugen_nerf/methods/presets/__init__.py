"""Specifications that nerfstudio finds through the entry points."""
