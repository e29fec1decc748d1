"""What decodes the steps of a converted network."""

from __future__ import annotations

from typing import Any

from conure.engine.backends.cpu.native_decoder import NativeDecoder
from conure.engine.backends.decoder import StreamDecoder
from conure.engine.convert.converted_folder import ConvertedModel
from conure.native.library import has_native_kernels

__all__ = ["open_decoder"]


def open_decoder(converted: ConvertedModel, threads: int, *, kernels: bool = True) -> StreamDecoder[Any]:
    """Native kernels; without them, or where there are none, the loop in torch over heads in ONNX Runtime."""
    if kernels and has_native_kernels() and NativeDecoder.is_in(converted.folder):
        return NativeDecoder(converted.folder, converted.checkpoint.config, threads)
    import torch  # noqa: PLC0415

    from conure.engine.backends.cpu.onnx_heads import OnnxHeads  # noqa: PLC0415
    from conure.engine.backends.torch_eager.decoder import TorchDecoder  # noqa: PLC0415

    # What is left for torch is small, and its threads would take the cores from those of ONNX Runtime; so is a step of
    # the heads.
    torch.set_num_threads(1)
    return TorchDecoder(OnnxHeads(converted, threads=1))
