"""Protocols that people's programs speak: wire to our types and back, nothing else."""
