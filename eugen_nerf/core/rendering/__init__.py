"""Rendering apart from networks: contraction, step functions, renderers, sphere tracing, losses of distances."""
