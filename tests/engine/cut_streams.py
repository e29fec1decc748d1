"""What a stream with cuts is to hear, found from encodings of all that came before each cut and one plain decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from conure.decoding.flushed_tokens import FlushedTokens
from conure.decoding.transducer import TransducerState, decode_transducer
from conure.models.network import Network

__all__ = ["decode_with_cuts"]


@torch.inference_mode()
def decode_with_cuts(
    net: Network,
    samples: np.ndarray,
    cuts: Sequence[int],
    encode: Callable[[np.ndarray], Tensor | None],
    whole: Callable[[int], int],
) -> list[list[tuple[int, int]]]:
    """(token, step) between cuts, the last of which is the end of the stream.

    `encode` gives the steps of a clip [1, S, D]; `whole` tells how many steps of a stream of so many samples will not
    change, whatever comes. They are decoded once and in order. At a cut the others are decoded from a copy of the
    state, and what that gives is left out when it comes again.
    """
    state, at, heard, flushed = TransducerState.start(net, 1), 0, [], FlushedTokens()
    for cut in cuts:
        encoded, told = encode(samples[:cut]), []
        if encoded is not None:
            fixed = min(whole(cut), encoded.shape[1])
            found, state = decode_transducer(net, encoded[:, at:fixed], torch.tensor([fixed - at]), state)
            told += flushed.remove_known(found.row(0), flush=False)
            rest = encoded[:, fixed:]
            found, _ = decode_transducer(net, rest, torch.tensor([rest.shape[1]]), state)
            told += flushed.remove_known(found.row(0), flush=True)
            at = fixed
        heard.append([(token.id, token.step) for token in told])
    return heard
