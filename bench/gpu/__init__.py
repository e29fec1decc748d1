"""What a card can do, checked and measured: see `__main__`."""
