"""Conure: speech to text on your own machine."""
