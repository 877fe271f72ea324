"""Tabs of the control panel, and code that only they use."""
