"""Surfaces of trained signed distances: queries at points, meshes, slices, volumes."""
