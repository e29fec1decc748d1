"""Others, each run by its own environment."""
