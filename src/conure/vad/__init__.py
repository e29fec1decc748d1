"""Speech detection (Silero VAD), endpointing of streams and segmentation of recordings."""
