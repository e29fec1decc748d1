"""Networks on an NVIDIA GPU: CUDA graphs, state in slots, uploads from pinned memory."""
