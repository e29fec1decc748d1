"""Several server processes in front of one engine."""
