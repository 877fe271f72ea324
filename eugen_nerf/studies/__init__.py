"""Experiments on layers alone, without a renderer: what the paper shows of its layers before any scene is learned."""
