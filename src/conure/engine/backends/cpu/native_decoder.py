"""Greedy decoding of a converted network in native kernels, without torch: clips in slices, streams by slot.

The reference implementation is `torch_eager.decoder.TorchDecoder` over the heads in ONNX Runtime (`OnnxHeads`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conure.decoding.emitted_token import ALPHA, EmittedToken
from conure.engine.backends.decoder import Tokens
from conure.engine.convert.array_file import ArrayFile
from conure.models.preemptible import Preemptible
from conure.native.decoder import CtcLabeller, DecoderState, Layer, TokenColumns, TransducerDecoder, TransducerHeads
from conure.native.library import Kernels

if TYPE_CHECKING:
    from conure.models.config import NetworkConfig

__all__ = ["HEADS_FILE", "NativeDecoder"]

HEADS_FILE = "heads.packed"

SLICE_STEPS = 128
"""Encoder steps (10 s) of each clip that a transducer decodes in one slice."""
CTC_SLICE_STEPS = 512
"""Encoder steps that CTC labels in one slice."""


class NativeDecoder:
    """Decodes by the transducer if the network has one, else by CTC."""

    def __init__(self, folder: Path, config: NetworkConfig, threads: int) -> None:
        """Opens the heads of a converted model. Raises OSError if they do not exist."""
        self.config, self._weights = config, ArrayFile(folder / HEADS_FILE)
        kernels = Kernels(threads)
        self._decoder = self._labeller = None
        if config.predictor_width:
            self._decoder = TransducerDecoder(kernels, self._read_transducer_heads())
        else:
            self._labeller = CtcLabeller(kernels, self._layer("ctc"), config.vocabulary + 1, ALPHA)

    @staticmethod
    def exists_in(folder: Path) -> bool:
        """Whether the folder has heads for the native decoder."""
        return ArrayFile.exists(folder / HEADS_FILE)

    def decode(self, encoded: Any, counts: Any) -> Preemptible[Tokens]:
        """encoded [B, S, D], counts [B], arrays or CPU tensors -> the tokens of each clip."""
        encoded, counts = np.asarray(encoded), np.asarray(counts)
        if self._labeller is not None:
            tokens = []
            for row, count in zip(encoded, counts, strict=True):
                tokens.append((yield from self._decode_ctc(self._labeller, row[:count])))
            return tokens
        tokens = [[] for _ in counts]
        state, rows = self.allocate(len(counts)), np.arange(len(counts))
        for begin in range(0, encoded.shape[1], SLICE_STEPS):
            yield
            part = encoded[:, begin : begin + SLICE_STEPS]
            found = self.decode_chunk(part, (counts - begin).clip(0, part.shape[1]), state, rows)
            for row, emitted in zip(tokens, found, strict=True):
                row += emitted
        return tokens

    def allocate(self, rows: int) -> DecoderState:
        """State of new streams."""
        return DecoderState(self._transducer_decoder.heads, rows)

    def decode_chunk(
        self, encoded: Any, counts: Any, state: DecoderState, rows: Any, flush: np.ndarray | None = None
    ) -> Tokens:
        """encoded [B, C, D], counts [B] of a chunk of slots `rows` [B] -> its tokens; updates the state.

        Flushed rows are treated as in `StreamDecoder`.
        """
        encoded, counts, rows = np.asarray(encoded), np.asarray(counts), np.asarray(rows)
        if flush is None:
            return _to_tokens(self._transducer_decoder.decode(encoded, counts, state, rows))
        flushed = rows[flush]
        before = state.save(flushed)
        written = self._transducer_decoder.decode(encoded, counts, state, rows)
        state.restore(flushed, before)
        return _to_tokens(written)

    @property
    def _transducer_decoder(self) -> TransducerDecoder:
        if self._decoder is None:
            raise ValueError("this network has no transducer head")
        return self._decoder

    def _read_transducer_heads(self) -> TransducerHeads:
        config = self.config
        return TransducerHeads(
            encoder=self._layer("encoder"),
            embedding=self._weights.array("embedding"),
            cells=[self._layer(f"cell.{index}") for index in range(config.predictor_layers)],
            predicted=self._layer("predicted"),
            joint=self._layer("joint"),
            tokens=config.vocabulary + 1,
            durations=config.durations,
            max_symbols=config.max_symbols,
            alpha=ALPHA,
        )

    def _layer(self, name: str) -> Layer:
        scales = self._weights.array(f"{name}.scales") if f"{name}.scales" in self._weights else None
        return Layer(self._weights.array(f"{name}.values"), scales, self._weights.array(f"{name}.bias"))

    def _decode_ctc(self, labeller: CtcLabeller, encoded: np.ndarray) -> Preemptible[list[EmittedToken]]:
        """The tokens of a clip [S, D] by CTC."""
        parts = []
        for begin in range(0, len(encoded), CTC_SLICE_STEPS):
            yield
            parts.append(labeller.label(encoded[begin : begin + CTC_SLICE_STEPS]))
        if not parts:
            return []
        ids, log_probabilities, confidences = (np.concatenate(part) for part in zip(*parts, strict=True))
        return _collapse_repeats(ids, log_probabilities, confidences, self.config.blank)


def _to_tokens(written: TokenColumns) -> Tokens:
    counts = written.counts.tolist()
    max_count = max(counts, default=0)
    columns = zip(*(column[:, :max_count].tolist() for column in written.columns), strict=True)
    return [
        [EmittedToken(*values) for values in zip(*(column[:count] for column in row), strict=True)]
        for count, row in zip(counts, columns, strict=True)
    ]


def _collapse_repeats(
    ids: np.ndarray, log_probabilities: np.ndarray, confidences: np.ndarray, blank: int
) -> list[EmittedToken]:
    """Collapses runs of equal labels to tokens, as in `decoding.ctc`."""
    starts = np.flatnonzero((ids != blank) & (ids != np.concatenate([[blank], ids[:-1]])))
    if not len(starts):
        return []
    ends = np.flatnonzero((ids != blank) & (ids != np.concatenate([ids[1:], [blank]]))) + 1
    bounds = np.stack([starts, ends], 1).ravel()
    lowest = np.minimum.reduceat(np.append(confidences, 1), bounds)[::2]
    columns = ids[starts], starts, ends - starts, log_probabilities[starts], lowest
    return [EmittedToken(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
