"""Data sets: reading, checking, data managers and generated scenes."""
