"""Converted networks on a CPU: native int8 kernels, with ONNX Runtime as the reference implementation and fallback."""
