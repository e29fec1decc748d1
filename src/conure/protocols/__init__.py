"""Protocols of the server: translate between wire formats and the types of `service`, and contain no other logic."""
