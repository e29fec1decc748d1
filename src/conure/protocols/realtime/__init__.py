"""OpenAI's Realtime protocol for transcription, and dialects derived from it."""
