"""Photographs with known cameras, in the formats people have: read, checked, and handed to nerfstudio's data manager.

`transforms.py` and `colmap.py` read a format into an `ImageSet`, `lenses.py` its cameras; `layouts.py` finds out which
format a directory has; `image_parser.py` makes nerfstudio's outputs of it; `image_files.py` looks at the files.
"""
