"""Lenses: how data sets describe them, what nerfstudio can follow, and undistortion."""
