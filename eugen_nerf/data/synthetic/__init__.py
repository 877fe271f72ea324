"""Generated scenes with exact ground truth: still, moving, and rooms with signed distances."""
