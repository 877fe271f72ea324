"""Finished runs: their paths, loading, and image metrics."""
