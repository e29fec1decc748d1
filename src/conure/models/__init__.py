"""Networks and checkpoints. Nothing here knows of files of audio, batches or turns."""
