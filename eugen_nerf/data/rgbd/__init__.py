"""Posed RGB-D sequences: their layouts on disk, their frames, and rays of their depth."""
