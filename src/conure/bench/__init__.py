"""Measures the capacity and throughput of a server with simulated clients: live streams in real time, and uploads."""
