"""The inference engine: one process that owns the networks and serves streams and clips."""
