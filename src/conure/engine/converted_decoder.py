"""What decodes the steps of a converted network."""

from __future__ import annotations

from typing import Any

from conure.engine.clip_decoder import StreamDecoder
from conure.engine.converted import Converted
from conure.engine.kernel_decoder import KernelDecoder
from conure.native.library import available

__all__ = ["open_decoder"]


def open_decoder(converted: Converted, threads: int, *, kernels: bool = True) -> StreamDecoder[Any]:
    """Native kernels; without them, or where there are none, the loop in torch over heads in ONNX Runtime."""
    if kernels and available() and KernelDecoder.is_in(converted.folder):
        return KernelDecoder(converted.folder, converted.checkpoint.config, threads)
    import torch  # noqa: PLC0415

    from conure.engine.onnx_heads import OnnxHeads  # noqa: PLC0415
    from conure.engine.plain_decoder import PlainDecoder  # noqa: PLC0415

    # What is left for torch is small, and its threads would take the cores from those of ONNX Runtime; so is a step of
    # the heads.
    torch.set_num_threads(1)
    return PlainDecoder(OnnxHeads(converted, threads=1))
