"""Copying weights of a model for whole clips into a live network."""

from pathlib import Path

import torch

from conure.models import conure_file
from conure.models.network import Network
from tools.train.initial import copy_weights, initialise
from tools.train.recipes import TINY_LIVE
from tools.train.tokenizer import Tokenizer

TINY = Path(__file__).parents[2] / "src" / "conure" / "data" / "tiny"


def test_a_live_network_starts_with_the_weights_of_tiny() -> None:
    tokenizer = Tokenizer(TINY / "tokenizer.model")
    theirs = {name: tensor.float() for name, tensor in conure_file.read(TINY).tensors.items()}
    network = Network(TINY_LIVE.network(tokenizer.size))
    initialise(network)
    copy_weights(network, tokenizer, TINY)
    mine = network.state_dict()

    def equal(name: str) -> bool:
        return torch.equal(mine[name], theirs[name])

    assert equal("encoder.layers.3.feed_forward1.linear1.weight")
    assert equal("encoder.layers.7.self_attn.linear_pos.weight")
    assert equal("ctc_head.weight")
    assert torch.equal(mine["joint.head.bias"], theirs["joint.head.bias"][: tokenizer.size + 1])
    filters = "encoder.layers.0.conv.depthwise_conv.weight"
    assert torch.equal(mine[filters][:, :, 4:], theirs[filters][:, :, :5])
    assert not mine[filters][:, :, :4].any()
    out = "encoder.pre_encode.out.weight"
    assert torch.equal(mine[out].view(144, 48, 11)[:, :, 1:], theirs[out].view(144, 48, 10))
