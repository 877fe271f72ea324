"""The engine of web pages in Python: its JavaScript in V8, its shaders on this machine's GPU, without a browser."""
