"""How much memory a model needs on its device, and what it is granted. Knows no torch."""
