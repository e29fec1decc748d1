"""Riva's speech recognition over gRPC, as NVIDIA's clients speak it. Loaded only where its port is open."""
