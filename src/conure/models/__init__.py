"""Networks and checkpoints. Independent of audio files, batches and the scheduler."""
