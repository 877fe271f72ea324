"""Protocol, metrics, timing and the comparison report."""
