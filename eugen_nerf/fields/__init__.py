"""nerfstudio fields made of EUGen networks."""
