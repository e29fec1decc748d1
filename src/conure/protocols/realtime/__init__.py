"""OpenAI's Realtime protocol for transcription, and others that grew from it."""
