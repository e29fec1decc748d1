"""Greedy decoding of a converted network in native kernels, without torch: clips in slices, rows of streams in place.

Its plain twin is `clip_decoder.PlainDecoder` over the heads in ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conure.decoding.emitted_token import ALPHA, EmittedToken
from conure.engine.convert.array_file import ArrayFile
from conure.models.preemptible import Preemptible
from conure.native.decoder import Decoder, DecoderMemory, Labeller, Layer, TransducerHeads, Written
from conure.native.library import Kernels

if TYPE_CHECKING:
    from conure.models.config import NetworkConfig

__all__ = ["HEADS_FILE", "NativeDecoder"]

HEADS_FILE = "heads.packed"

SLICE_STEPS = 128
"""Encoder steps (10 s) of each clip decoded in a slice by a transducer."""
LABELLED_STEPS = 512
"""Encoder steps labelled by CTC in a slice."""

Tokens = list[list[EmittedToken]]


class NativeDecoder:
    """The transducer where there is one, else CTC."""

    def __init__(self, folder: Path, config: NetworkConfig, threads: int) -> None:
        """Opens the heads of a converted folder. Raises OSError where they are not there."""
        self.config, self._packed = config, ArrayFile(folder / HEADS_FILE)
        kernels = Kernels(threads)
        self._decoder = self._labeller = None
        if config.predictor_width:
            self._decoder = Decoder(kernels, self._transducer())
        else:
            self._labeller = Labeller(kernels, self._layer("ctc"), config.vocabulary + 1, ALPHA)

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether there are heads for it."""
        return ArrayFile.are_in(folder / HEADS_FILE)

    def decode(self, encoded: Any, counts: Any) -> Preemptible[Tokens]:
        """encoded [B, S, D], counts [B], arrays or tensors in memory -> the tokens of each clip."""
        encoded, counts = np.asarray(encoded), np.asarray(counts)
        if self._labeller is not None:
            tokens = []
            for row, count in zip(encoded, counts, strict=True):
                tokens.append((yield from self._labelled(self._labeller, row[:count])))
            return tokens
        tokens = [[] for _ in counts]
        memory, rows = self.allocate(len(counts)), np.arange(len(counts))
        for begin in range(0, encoded.shape[1], SLICE_STEPS):
            yield
            part = encoded[:, begin : begin + SLICE_STEPS]
            found = self.decode_chunk(part, (counts - begin).clip(0, part.shape[1]), memory, rows)
            for row, emitted in zip(tokens, found, strict=True):
                row += emitted
        return tokens

    def allocate(self, rows: int) -> DecoderMemory:
        """Fresh rows of streams."""
        return DecoderMemory(self._transducing.heads, rows)

    def decode_chunk(
        self, encoded: Any, counts: Any, memory: DecoderMemory, rows: Any, flush: np.ndarray | None = None
    ) -> Tokens:
        """encoded [B, C, D] and counts [B] of a chunk for rows [B] of the memory -> their tokens; in place.

        Rows that are flushed are as `StreamDecoder` has them.
        """
        encoded, counts, rows = np.asarray(encoded), np.asarray(counts), np.asarray(rows)
        if flush is None:
            return _emitted(self._transducing.decode(encoded, counts, memory, rows))
        flushed = rows[flush]
        before = memory.copy(flushed)
        written = self._transducing.decode(encoded, counts, memory, rows)
        memory.write(flushed, before)
        return _emitted(written)

    @property
    def _transducing(self) -> Decoder:
        if self._decoder is None:
            raise ValueError("this network has no transducer head")
        return self._decoder

    def _transducer(self) -> TransducerHeads:
        config = self.config
        return TransducerHeads(
            encoder=self._layer("encoder"),
            embedding=self._packed.array("embedding"),
            cells=[self._layer(f"cell.{index}") for index in range(config.predictor_layers)],
            predicted=self._layer("predicted"),
            joint=self._layer("joint"),
            tokens=config.vocabulary + 1,
            durations=config.durations,
            most_symbols=config.max_symbols,
            alpha=ALPHA,
        )

    def _layer(self, name: str) -> Layer:
        scales = self._packed.array(f"{name}.scales") if f"{name}.scales" in self._packed else None
        return Layer(self._packed.array(f"{name}.values"), scales, self._packed.array(f"{name}.bias"))

    def _labelled(self, labeller: Labeller, encoded: np.ndarray) -> Preemptible[list[EmittedToken]]:
        """The tokens of a clip [S, D]."""
        parts = []
        for begin in range(0, len(encoded), LABELLED_STEPS):
            yield
            parts.append(labeller.label(encoded[begin : begin + LABELLED_STEPS]))
        if not parts:
            return []
        ids, log_probabilities, confidences = (np.concatenate(part) for part in zip(*parts, strict=True))
        return _runs(ids, log_probabilities, confidences, self.config.blank)


def _emitted(written: Written) -> Tokens:
    counts = written.counts.tolist()
    most = max(counts, default=0)
    columns = zip(*(column[:, :most].tolist() for column in written.columns), strict=True)
    return [
        [EmittedToken(*values) for values in zip(*(column[:count] for column in row), strict=True)]
        for count, row in zip(counts, columns, strict=True)
    ]


def _runs(ids: np.ndarray, log_probabilities: np.ndarray, confidences: np.ndarray, blank: int) -> list[EmittedToken]:
    """A token for each run of equal labels, as in `decoding.ctc`."""
    starts = np.flatnonzero((ids != blank) & (ids != np.concatenate([[blank], ids[:-1]])))
    if not len(starts):
        return []
    ends = np.flatnonzero((ids != blank) & (ids != np.concatenate([ids[1:], [blank]]))) + 1
    bounds = np.stack([starts, ends], 1).ravel()
    least = np.minimum.reduceat(np.append(confidences, 1), bounds)[::2]
    columns = ids[starts], starts, ends - starts, log_probabilities[starts], least
    return [EmittedToken(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
