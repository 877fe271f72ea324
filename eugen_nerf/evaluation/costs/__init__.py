"""What a run costs: parameters, memory, and time of queries, images and training steps."""
