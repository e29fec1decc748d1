"""Weights to begin with: random ones that let the audio through, or what another of our networks has learned."""

from pathlib import Path

import torch
from torch import Tensor, nn

from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.network import Network
from tools.train.tokenizer import Tokenizer

__all__ = ["HEAD_START", "begin_with", "initialise"]

LOG_MEL_MEAN, LOG_MEL_SPREAD = -9.0, 4.0
"""Of speech at usual levels."""
HEAD_START = 900
"""Updates of the curriculum that need not be made again: the network hears words already."""
VOCABULARY_ROWS = (
    "predictor.embedding.weight",
    "joint.head.weight",
    "joint.head.bias",
    "ctc_head.weight",
    "ctc_head.bias",
)
DEPTHWISE, FIRST, OUT = "depthwise_conv.weight", "encoder.pre_encode.conv.0.weight", "encoder.pre_encode.out.weight"


def initialise(network: Network) -> None:
    """Let the audio through the subsampling at first.

    With PyTorch's defaults each of its five convolutions lets a sixth of the signal's power through while the
    biases stay, so that the layers see a nearly constant input and stay for thousands of updates at the
    frequencies of words.
    """
    front = network.encoder.pre_encode
    for module in front.modules():
        if isinstance(module, nn.Conv2d):
            mixes = module.groups == 1  # a ReLU follows; the depthwise ones have none
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if mixes else "linear")
            nn.init.zeros_(module.bias)
    nn.init.xavier_normal_(front.out.weight)
    nn.init.zeros_(front.out.bias)
    if network.config.mel.normalize == "NA":
        _expect_log_mel(front.conv[0])


@torch.no_grad()
def _expect_log_mel(first: nn.Conv2d) -> None:
    """What a normalised clip would give, for features that are not."""
    first.weight /= LOG_MEL_SPREAD
    first.bias -= LOG_MEL_MEAN * first.weight.sum((1, 2, 3))


@torch.no_grad()
def begin_with(network: Network, tokenizer: Tokenizer, folder: Path) -> None:
    """Fills a cache-aware network from a model of ours that hears whole clips and has the same widths.

    Rows of vocabularies are found by their pieces. A filter over time keeps its past half, in place, and does not
    hear yet what is longer ago. Norms of another kind stay as they were initialised.
    """
    other = conure_file.read(folder)
    rows = _rows(tokenizer, other)
    for name, mine in network.named_parameters():
        theirs = other.tensors[name].float()
        if name in VOCABULARY_ROWS:
            for here, there in rows.items():
                mine[here] = theirs[there]
        elif name.endswith(DEPTHWISE):
            mine.copy_(_past_half(theirs))
        elif name == OUT:
            mine.copy_(_bands_moved(theirs, network.config.encoder.channels))
        elif "batch_norm" not in name:
            mine.copy_(theirs)
    _expect_log_mel(network.encoder.pre_encode.conv[0])


def _rows(tokenizer: Tokenizer, other: Checkpoint) -> dict[int, int]:
    """Our ids to theirs, where the piece is the same; the blank comes last in both."""
    theirs = {piece: index for index, piece in enumerate(other.tokenizer.pieces)}
    mine = {index: tokenizer.processor.id_to_piece(index) for index in range(tokenizer.size)}
    rows = {index: theirs[piece] for index, piece in mine.items() if piece in theirs}
    return rows | {tokenizer.size: len(theirs)}


def _past_half(weight: Tensor) -> Tensor:
    """[D, 1, k] centred -> the same with its centre at the end."""
    half = weight.shape[2] // 2
    return nn.functional.pad(weight[:, :, : half + 1], (half, 0))


def _bands_moved(weight: Tensor, channels: int) -> Tensor:
    """[D, channels * bands]: causal subsampling pads low frequencies more, which moves each band up by 7/8 of one."""
    moved = nn.functional.pad(weight.view(len(weight), channels, -1), (1, 0))
    return moved.flatten(1)
