"""What a step should take on a card: every operation of it counted on tensors without contents, and a card's limits."""
