"""Photographs with known cameras, in common formats: read, checked and passed to nerfstudio's data manager.

`layouts.py` detects the format of a directory. `transforms.py` and `colmap.py` read a format into an `ImageSet`,
`lenses/lens_reading.py` its lenses. `image_parser.py` makes nerfstudio's outputs from it. `image_files.py` checks the
files.
"""
