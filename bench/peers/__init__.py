"""Other projects, each run in its own environment."""
