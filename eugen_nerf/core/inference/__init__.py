"""Inference plans: the fastest way to run a collapsed network on the machine at hand."""
