"""Expected tokens of a stream with finalizes, from offline encodings of the audio before each finalize."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from conure.decoding.flushed_tokens import FlushedTokens
from conure.decoding.transducer import TransducerState, decode_transducer
from conure.models.network import Network

__all__ = ["decode_with_finalizes"]


@torch.inference_mode()
def decode_with_finalizes(
    net: Network,
    samples: np.ndarray,
    finalizes: Sequence[int],
    encode: Callable[[np.ndarray], Tensor | None],
    whole: Callable[[int], int],
) -> list[list[tuple[int, int]]]:
    """(token, frame) between finalizes, the last of which is the end of the stream.

    `encode` returns the encoder frames of a clip [1, S, D]; `whole` how many frames of a stream of so many samples are
    final. These are decoded once and in order. At a finalize the others are decoded from a copy of the state, and their
    tokens are removed when they are decoded again.
    """
    state, at, expected, flushed = TransducerState.start(net, 1), 0, [], FlushedTokens()
    for finalize in finalizes:
        encoded, emitted = encode(samples[:finalize]), []
        if encoded is not None:
            fixed = min(whole(finalize), encoded.shape[1])
            found, state = decode_transducer(net, encoded[:, at:fixed], torch.tensor([fixed - at]), state)
            emitted += flushed.remove_known(found.row(0), flush=False)
            rest = encoded[:, fixed:]
            found, _ = decode_transducer(net, rest, torch.tensor([rest.shape[1]]), state)
            emitted += flushed.remove_known(found.row(0), flush=True)
            at = fixed
        expected.append([(token.id, token.step) for token in emitted])
    return expected
