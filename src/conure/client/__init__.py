"""Talks to a Conure server; knows nothing of how it works."""
