"""Trained fields as web pages: rendered by the reader's own GPU, without a server."""
