"""Where the viewer listens, who may connect, and what clients may send."""
