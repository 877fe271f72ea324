"""Layers: EUGen and its baselines, of one building block, the stage."""
