"""Deepgram's protocol: what its clients send to `/v1/listen` and `/v2/listen`, and what they read."""
