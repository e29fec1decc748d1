"""Per-model bookkeeping: streams and clips, which of them are ready, and the steps and batches made of them."""
