"""Kernels in Triton, for what a GPU would otherwise do in many passes over its memory; each has a plain twin in torch.

A public function takes either way: `kernels` says which, and by default the device does. Neither waits for the device,
and shapes alone decide what is launched, so both may be captured in CUDA graphs, after a first call that compiles.
Kernels have no gradients.
"""
