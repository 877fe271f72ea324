"""Cameras, and images made ray by ray."""
