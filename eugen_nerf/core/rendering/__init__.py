"""Rendering apart from networks: contraction, step functions, sphere tracing, losses of distances."""
