"""Initial weights: random ones that pass the audio's variance on, or those of another Conure network."""

from pathlib import Path

import torch
from torch import Tensor, nn

from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.network import Network
from tools.train.tokenizer import Tokenizer

__all__ = ["HEAD_START", "copy_weights", "initialise"]

LOG_MEL_MEAN, LOG_MEL_SPREAD = -9.0, 4.0
"""Of speech at typical levels."""
HEAD_START = 900
"""Updates of the curriculum to skip, since the copied network knows words already."""
VOCABULARY_ROWS = (
    "predictor.embedding.weight",
    "joint.head.weight",
    "joint.head.bias",
    "ctc_head.weight",
    "ctc_head.bias",
)
DEPTHWISE, FIRST, OUT = "depthwise_conv.weight", "encoder.pre_encode.conv.0.weight", "encoder.pre_encode.out.weight"


def initialise(network: Network) -> None:
    """Initialise the subsampling so that it keeps the power of the signal.

    With PyTorch's defaults each of its five convolutions passes a sixth of the power while the biases stay. The layers
    would get a nearly constant input, and learn only word frequencies for thousands of updates.
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
    """Fold the normalisation of features into the first convolution, for networks without it."""
    first.weight /= LOG_MEL_SPREAD
    first.bias -= LOG_MEL_MEAN * first.weight.sum((1, 2, 3))


@torch.no_grad()
def copy_weights(network: Network, tokenizer: Tokenizer, folder: Path) -> None:
    """Copies weights of a Conure model for whole clips, of the same widths, into a cache-aware network.

    Rows of vocabularies are matched by their pieces. Filters over time keep their past half in place; taps for older
    steps are zero. Norms of another kind keep their initial values.
    """
    other = conure_file.read(folder)
    rows = _rows(tokenizer, other)
    for name, parameter in network.named_parameters():
        source = other.tensors[name].float()
        if name in VOCABULARY_ROWS:
            for row, source_row in rows.items():
                parameter[row] = source[source_row]
        elif name.endswith(DEPTHWISE):
            parameter.copy_(_past_half(source))
        elif name == OUT:
            parameter.copy_(_bands_moved(source, network.config.encoder.channels))
        elif "batch_norm" not in name:
            parameter.copy_(source)
    _expect_log_mel(network.encoder.pre_encode.conv[0])


def _rows(tokenizer: Tokenizer, other: Checkpoint) -> dict[int, int]:
    """Ids of this vocabulary to ids of the other one, for equal pieces; the blank is last in both."""
    ids = {piece: index for index, piece in enumerate(other.tokenizer.pieces)}
    pieces = {index: tokenizer.processor.id_to_piece(index) for index in range(tokenizer.size)}
    rows = {index: ids[piece] for index, piece in pieces.items() if piece in ids}
    return rows | {tokenizer.size: len(ids)}


def _past_half(weight: Tensor) -> Tensor:
    """[D, 1, k] centred -> the same with its centre at the end."""
    half = weight.shape[2] // 2
    return nn.functional.pad(weight[:, :, : half + 1], (half, 0))


def _bands_moved(weight: Tensor, channels: int) -> Tensor:
    """[D, channels * bands]: causal subsampling pads low frequencies more, which moves each band up by 7/8 of one."""
    moved = nn.functional.pad(weight.view(len(weight), channels, -1), (1, 0))
    return moved.flatten(1)
