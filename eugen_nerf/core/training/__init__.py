"""Training: merged matrices, Muon, and reduced precision of products."""
