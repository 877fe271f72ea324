"""Conversion to a budget: what layers would lose, how multiply-adds are allocated, what is measured."""
