"""Bundles: a trained field in one file that needs neither nerfstudio nor the code that trained it."""
