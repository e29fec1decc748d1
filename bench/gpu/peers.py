"""The Parakeet implementation of transformers, with random weights of the same size, on the same clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.audio import speech
from bench.gpu.clips import ENCODER
from bench.gpu.device import timed
from bench.gpu.floors import COLUMNS, floor_cells
from bench.gpu.result_table import ResultTable, milliseconds
from bench.operations import clip as floor_of
from conure.audio.features import LogMel
from conure.models.config import NetworkConfig

__all__ = ["transformers_parakeet"]

CASES = ((30, 1), (30, 32), (15, 128))
ROUNDS = 5
BLANK_BIAS = 1e4
"""Makes every token a blank; otherwise random weights would emit the maximum of tokens per frame."""


def transformers_parakeet(config: NetworkConfig, device: torch.device) -> ResultTable:
    """Times of its TDT model. Features are computed by Conure and not measured."""
    columns = ("seconds", "batch", "of", "p50 ms", "p99 ms", *COLUMNS, "times real time")
    table = ResultTable("transformers on the same clips", columns)
    if table.lacks_modules("transformers.models.parakeet.modeling_parakeet"):
        return table
    with table.record_failures("transformers"):
        import transformers  # noqa: PLC0415  not on every machine

        model = _model(transformers, config, device)
        table.add_note(f"transformers {transformers.__version__}. It emits only blanks, which is its fastest case.")
        front = LogMel(config.mel).to(device)
        for seconds, batch in CASES if device.type == "cuda" else ((2, 1),):
            with table.record_failures(f"{batch} x {seconds} s"), torch.inference_mode():
                _rows(table, model, front, config, seconds, batch)
    return table


def _rows(table: ResultTable, model: Any, front: LogMel, config: NetworkConfig, seconds: int, batch: int) -> None:
    device = front.window.device
    samples = torch.from_numpy(np.stack([speech(seconds)] * batch)).to(device)
    mel, _ = front(samples, torch.full((batch,), samples.shape[1], device=device))
    given = {
        "input_features": mel.to(model.dtype),
        "attention_mask": torch.ones(mel.shape[:2], dtype=torch.long, device=device),
    }
    floor = floor_of(config, batch, seconds)
    for name, stages, call in (
        ("encoder", ENCODER[1:], lambda: model.get_audio_features(**given)),
        ("all", (*ENCODER[1:], "decoding"), lambda: model.generate(**given)),
    ):
        spread = timed(device, call, ROUNDS)
        cells = (
            *milliseconds(spread),
            *floor_cells(spread.median, floor, stages),
            f"{seconds * batch / spread.median:.0f}",
        )
        table.add_row(f"{seconds}", f"{batch}", name, *cells)


def _model(transformers: Any, config: NetworkConfig, device: torch.device) -> Any:
    encoder = {
        "hidden_size": config.encoder.width,
        "num_hidden_layers": config.encoder.layers,
        "num_attention_heads": config.encoder.heads,
        "intermediate_size": config.encoder.width * config.encoder.expansion,
        "num_mel_bins": config.encoder.features,
        "attention_bias": False,
        "convolution_bias": False,
    }
    kind = transformers.ParakeetForTDT
    sizes = {"vocab_size": config.vocabulary + 1, "blank_token_id": config.blank, "encoder_config": encoder}
    with torch.device(device):
        model = kind(kind.config_class(**sizes)).eval()
    model.generation_config.decoder_start_token_id = config.blank
    with torch.no_grad():
        model.joint.head.bias[config.blank] = BLANK_BIAS
    return model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
