"""Tables of the pages in docs/, filled from result files."""
