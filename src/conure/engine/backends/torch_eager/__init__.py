"""Networks in eager PyTorch, on any device: the reference that the other backends are compared with."""
