"""What several commands share: options, progress, running other commands."""
