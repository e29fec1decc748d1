"""Wyoming over TCP: what Home Assistant speaks with programs that hear."""
