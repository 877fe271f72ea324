"""Scene generation and data checks."""
