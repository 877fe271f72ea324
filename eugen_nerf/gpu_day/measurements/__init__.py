"""What a day with a GPU measures, one file each."""
