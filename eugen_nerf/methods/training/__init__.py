"""What trainings need beside their models: checks of planes, and space carved from alpha."""
