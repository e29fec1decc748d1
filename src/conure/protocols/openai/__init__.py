"""OpenAI's REST API: transcriptions and models."""
