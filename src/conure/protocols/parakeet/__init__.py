"""Endpoints of services that people built around Parakeet: recordings as forms, and a stream that tells finals."""
