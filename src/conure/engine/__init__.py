"""Runs networks: runners for torch and ONNX Runtime, and clips in bounded batches."""
