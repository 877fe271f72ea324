"""Checks of what a user writes, before work begins: names, places, and plain data of files."""
