"""Posed RGB-D sequences: layouts on disk, frames, and rays through depth images."""
