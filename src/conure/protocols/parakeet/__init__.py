"""Endpoints of existing services built around Parakeet: form uploads, and a stream of finals."""
