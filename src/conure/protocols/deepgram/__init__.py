"""Deepgram's protocol: endpoints `/v1/listen` and `/v2/listen`."""
