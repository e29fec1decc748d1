"""Random weights that exercise all parts: no bias is zero, no norm is the identity, outputs depend on the audio.

Freshly initialised networks hide errors, since their biases and batch-norm statistics have no effect. So all tensors
get random values. They are rounded to bfloat16, which makes a checkpoint exact in float32 and in bfloat16 files.
"""

import torch
from torch import nn

# Layers that end a residual branch; scaled down in a deep encoder, whose outputs would otherwise be nearly equal.
BRANCH_ENDS = ("linear_out.weight", "linear2.weight", "pointwise_conv2.weight")
SHALLOW = 3


def randomize(model: nn.Module, seed: int) -> None:
    """Give all parameters and statistics of `model` reproducible values."""
    generator = torch.Generator().manual_seed(seed)
    branch = (SHALLOW / len(model.encoder.layers)) ** 0.5
    for name, parameter in model.named_parameters():
        randomize_parameter(name, parameter.data, generator)
        if name.endswith(BRANCH_ENDS):
            parameter.data *= branch
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2, generator=generator)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
    if hasattr(model, "joint"):
        model.decoder.prediction["embed"].weight.data[-1] = 0  # the start symbol's row, as padding_idx keeps it


def randomize_parameter(name: str, data: torch.Tensor, generator: torch.Generator) -> None:
    """Matrices keep the scale of signals, norms stay near one, biases are not zero."""
    if "pos_bias" in name:
        data.normal_(0, 0.3, generator=generator)
    elif data.dim() == 1 and "norm" in name and name.endswith("weight"):
        data.uniform_(0.7, 1.3, generator=generator)
    elif data.dim() == 1:
        data.normal_(0, 0.1, generator=generator)
    else:
        spread(data, 1.0, generator)
        if "pre_encode" in name:
            remove_constant(data)


def remove_constant(data: torch.Tensor) -> None:
    """Make the subsampling respond to changes rather than the level; otherwise all outputs would be nearly equal."""
    data -= data.flatten(1).mean(1).reshape(-1, *[1] * (data.dim() - 1))
    data *= 1.6


def spread(matrix: torch.Tensor, scale: float, generator: torch.Generator) -> None:
    """Fill a matrix so that unit inputs give outputs of about `scale`."""
    fan_in = matrix[0].numel()
    matrix.normal_(0, scale / fan_in**0.5, generator=generator)


def round_to_bfloat16(model: nn.Module) -> None:
    """Round weights to bfloat16, except window and filters of the features."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "featurizer" not in name:
            tensor.copy_(tensor.bfloat16().float())
