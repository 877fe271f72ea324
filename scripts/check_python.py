#!/usr/bin/env python
"""Ends with one line where the Python that make found cannot hold the environment."""

import sys

if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    version = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"error: Python {version} found, 3.10 to 3.12 needed; name another one: make PYTHON=python3.11 ...")
