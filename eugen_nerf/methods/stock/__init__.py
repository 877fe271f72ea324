"""Models of nerfstudio's own methods, copied into models whose fields are graphs of layers."""
