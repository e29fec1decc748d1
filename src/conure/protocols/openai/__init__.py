"""OpenAI's REST interface for recordings and models."""
