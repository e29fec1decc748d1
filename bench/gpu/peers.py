"""transformers' own Parakeet with random weights of the same size, on the same clips in the same run."""

from __future__ import annotations

import numpy as np
import torch

from bench.audio import speech
from bench.gpu.device import timed
from bench.gpu.told import Told, milliseconds
from conure.audio.features import LogMel
from conure.models.config import NetworkConfig

__all__ = ["transformers_parakeet"]

CASES = ((30, 1), (30, 32), (15, 128))


def transformers_parakeet(config: NetworkConfig, device: torch.device) -> Told:
    """Its TDT model where it has one, else CTC, which decodes in no time at all; features are ours for both."""
    told = Told("transformers on the same clips", ("seconds", "batch", "model", "p50 ms", "p99 ms", "times real time"))
    with told.failures("transformers"):
        import transformers  # noqa: PLC0415  not on every machine

        name, model = _model(transformers, config)
        model = model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32).eval()
        told.note(f"transformers {transformers.__version__}, {name}")
        front = LogMel(config.mel).to(device)
        for seconds, batch in CASES if device.type == "cuda" else ((2, 1),):
            with told.failures(f"{batch} x {seconds} s"):
                samples = torch.from_numpy(np.stack([speech(seconds)] * batch)).to(device)
                mel, _ = front(samples, torch.full((batch,), samples.shape[1], device=device))
                given = {
                    "input_features": mel.to(model.dtype),
                    "attention_mask": torch.ones(mel.shape[:2], device=device),
                }
                with torch.inference_mode():
                    took = timed(device, lambda m=model, g=given: m.generate(**g), rounds=5)
                told.row(f"{seconds}", f"{batch}", name, *milliseconds(took), f"{seconds * batch / took.median:.0f}")
    return told


def _model(transformers: object, config: NetworkConfig) -> tuple[str, torch.nn.Module]:
    encoder = {
        "hidden_size": config.encoder.width,
        "num_hidden_layers": config.encoder.layers,
        "num_attention_heads": config.encoder.heads,
        "intermediate_size": config.encoder.width * config.encoder.expansion,
        "num_mel_bins": config.encoder.features,
        "attention_bias": False,
        "convolution_bias": False,
    }
    for name in ("ParakeetForTDT", "ParakeetForCTC"):
        if hasattr(transformers, name):
            kind = getattr(transformers, name)
            return name, kind(kind.config_class(vocab_size=config.vocabulary + 1, encoder_config=encoder))
    raise ValueError("this version has no Parakeet")
