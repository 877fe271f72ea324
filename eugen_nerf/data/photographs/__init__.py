"""Photographs without poses: cameras found by COLMAP, and how well cameras agree."""
