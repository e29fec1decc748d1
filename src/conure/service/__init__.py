"""What the protocols share: sessions, recordings, access and limits, and the status of the server."""
