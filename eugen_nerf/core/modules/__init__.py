"""Conversion of any PyTorch model in place: which of its layers can shrink, and how."""
