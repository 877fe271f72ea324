"""Finished runs: where they lie, how they are loaded, and how their images are scored."""
