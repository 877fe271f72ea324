"""What training these networks needs besides autograd: merged matrices, Muon, reduced precision."""
