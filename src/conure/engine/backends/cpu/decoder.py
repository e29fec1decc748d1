"""Selects the decoder of a converted network."""

from __future__ import annotations

from typing import Any

from conure.engine.backends.cpu.native_decoder import NativeDecoder
from conure.engine.backends.decoder import StreamDecoder
from conure.engine.convert.converted_folder import ConvertedModel
from conure.native.library import has_native_kernels

__all__ = ["open_decoder"]


def open_decoder(converted: ConvertedModel, threads: int, *, kernels: bool = True) -> StreamDecoder[Any]:
    """The native decoder; without `kernels` or if it is not available, torch's loop over heads in ONNX Runtime."""
    if kernels and has_native_kernels() and NativeDecoder.exists_in(converted.folder):
        return NativeDecoder(converted.folder, converted.checkpoint.config, threads)
    import torch  # noqa: PLC0415

    from conure.engine.backends.cpu.onnx_heads import OnnxHeads  # noqa: PLC0415
    from conure.engine.backends.torch_eager.decoder import TorchDecoder  # noqa: PLC0415

    # The operations left to torch are small, and its threads would compete with those of ONNX Runtime; a step of the
    # heads is small, too.
    torch.set_num_threads(1)
    return TorchDecoder(OnnxHeads(converted, threads=1))
