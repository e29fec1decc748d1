"""The client against a small real server that breaks when it is told to."""
