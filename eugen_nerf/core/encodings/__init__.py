"""Encodings of positions and directions: frequencies, frustums, hash grids."""
