"""The interactive web viewer: runs side by side, compressed by hand (`eugen-view`)."""
