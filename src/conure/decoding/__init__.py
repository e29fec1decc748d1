"""Encoder output to tokens with times, probabilities and confidences."""
