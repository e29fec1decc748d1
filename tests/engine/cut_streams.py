"""What a stream with cuts is to hear, found from encodings of all that came before each cut and one plain decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

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
    """(token, step) between cuts, the last of which is the end of the stream. For RNNT.

    `encode` gives the steps of a clip [1, S, D]; `whole` tells how many steps of a stream of so many samples will not
    change, whatever comes. Between cuts they are decoded once and in order. At a cut so are the others, but what is
    after the last token that they gave is decoded again when it will not change any more.
    """
    state, at, heard = TransducerState.start(net, 1), 0, []
    for cut in cuts:
        encoded = encode(samples[:cut])
        count = 0 if encoded is None else encoded.shape[1]
        fixed, told = min(whole(cut), count), []
        for end in (fixed, count):
            if encoded is None or end <= at:
                continue
            state = replace(state, decoded=torch.tensor([at]), ahead=torch.tensor([0]))
            tokens, state = decode_transducer(net, encoded[:, at:end], torch.tensor([end - at]), state)
            found = [(token.id, token.step) for token in tokens.row(0)]
            at = fixed if end == fixed else max([at, *(step + 1 for _, step in found)])
            told += found
        heard.append(told)
    return heard
