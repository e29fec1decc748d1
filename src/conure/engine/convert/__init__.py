"""Conversion of a checkpoint to the folder that the CPU backend opens: ONNX graphs, packed int8 weights, heads."""
