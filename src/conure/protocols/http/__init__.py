"""The HTTP and WebSocket server that the protocols share: connections, limits, uploads, errors, pages."""
