"""Fused Triton kernels for operations that would otherwise make several passes over GPU memory.

Each public function has a reference implementation in torch (`*_reference`). The argument `kernels` selects the kernel
or the reference; by default the device decides. Neither synchronises with the device, and the launched work depends on
shapes only, so both can be captured in CUDA graphs after a first call that compiles. Kernels have no gradients.
"""
