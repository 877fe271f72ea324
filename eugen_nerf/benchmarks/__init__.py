"""Measurements of networks alone: no data set, no training, no nerfstudio."""
