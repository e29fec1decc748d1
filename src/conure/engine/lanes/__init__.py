"""Lanes: bookkeeping of one model's streams or clips, which of them are ready, and their steps and batches."""
