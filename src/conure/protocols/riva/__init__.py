"""Riva's speech recognition over gRPC, as used by NVIDIA's clients. Imported only if its port is enabled."""
