"""Runs that are converted, behind one interface: fields that are graphs of layers, and modules of any other field."""
