"""Conure's own protocol: live streams over WebSocket and TCP, recordings over HTTP."""
