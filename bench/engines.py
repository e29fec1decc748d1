"""The engines to measure, with their workers, environments and files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["BEST", "ENGINES", "Engine"]


@dataclass(frozen=True)
class Engine:
    name: str
    worker: str
    environment: str | None
    """Subfolder of --environments; None is the environment of the benchmark."""
    model: str
    """Subfolder of --models."""
    options: dict[str, Any] = field(default_factory=dict)
    ours: bool = False


ENGINES = (
    Engine("conure onnx int8", "conure_worker", None, "conure", {"runner": "onnx-int8"}, ours=True),
    Engine("conure onnx fp32", "conure_worker", None, "conure", {"runner": "onnx-fp32"}, ours=True),
    Engine("conure torch fp32", "conure_worker", None, "conure", {"runner": "torch"}, ours=True),
    Engine("onnx-asr fp32", "onnx_asr_worker", "onnx-asr", "onnx-asr"),
    Engine("onnx-asr int8", "onnx_asr_worker", "onnx-asr", "onnx-asr", {"quantization": "int8"}),
    Engine("onnx-asr int8, products", "onnx_asr_worker", "onnx-asr", "onnx-asr", {"quantization": "int8-matmul"}),
    Engine("sherpa-onnx int8", "sherpa_worker", "sherpa-onnx", "sherpa-onnx"),
    Engine("transformers fp32", "transformers_worker", "transformers", "transformers"),
    Engine("transformers bf16", "transformers_worker", "transformers", "transformers", {"dtype": "bfloat16"}),
    Engine("NeMo fp32", "nemo_worker", "nemo", "parakeet.nemo"),
)
BEST = ENGINES[0]
"""The choice of `auto` on a CPU; the others are compared with it."""
