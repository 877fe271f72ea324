"""Method specifications that the entry points register with nerfstudio."""
