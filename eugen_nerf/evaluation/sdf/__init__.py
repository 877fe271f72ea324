"""The comparison of signed distance runs."""
