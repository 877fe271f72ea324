#!/usr/bin/env python
"""Runs eugen-distill from a checkout."""

from eugen_nerf.cli.distill import main

if __name__ == "__main__":
    main()
