"""Networks of layers, and what they collapse to for inference."""
