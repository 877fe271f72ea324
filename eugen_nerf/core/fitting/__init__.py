"""Fitting layers in closed form: samples, importance, allocation, recipes."""
