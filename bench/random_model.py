"""A checkpoint of the size of parakeet-tdt-0.6b with random weights: its speed is real, its words are meaningless.

The blank's bias is set to give about three tokens per second of real speech, as trained models do; durations are
random, one to four frames.

    python -m bench.random_model --out FOLDER [--vocabulary 8192] [--layers 24]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from sentencepiece import sentencepiece_model_pb2
from torch import Tensor

from bench.audio import speech
from conure.audio.features import LogMel
from conure.audio.mel import MelConfig
from conure.decoding.transducer import decode_transducer
from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.config import AttentionContext, EncoderConfig, NetworkConfig
from conure.models.network import Network
from conure.models.transducer import Joint
from conure.models.weights import is_learned
from conure.text.tokenizer import read_tokenizer

TOKENS_PER_SECOND = 3.0
SECONDS = 30
DURATIONS = (0, 1, 2, 3, 4)
LIVE_PAST, LIVE_VOCABULARY = 70, 1024
LIVE_RIGHTS = (13, 6, 1, 0)
"""Look-aheads in encoder frames, which define the chunks."""
LIVE_BLANKS = 0.8
"""Share of frames without a token, as in speech."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=8192, help="8192 for v3, 1024 for v2")
    parser.add_argument("--layers", type=int, default=24)
    options = parser.parse_args()
    network = build(options.vocabulary, options.layers)
    rate = calibrate(network)
    tensors = {name: tensor for name, tensor in network.state_dict().items() if is_learned(name)}
    tokenizer = read_tokenizer("tokenizer.model", make_tokenizer(options.vocabulary), options.vocabulary)
    conure_file.save(Checkpoint(network.config, tensors, tokenizer, name=options.out.name), options.out)
    print(f"{options.out}: {rate:.2f} tokens per second")


def build(vocabulary: int, layers: int, width: int = 1024, device: torch.device | str = "cpu") -> Network:
    """Made on the device, as random numbers take half a minute on a CPU."""
    torch.manual_seed(0)
    encoder = EncoderConfig(features=128, layers=layers, width=width, bias=False)
    config = NetworkConfig(
        encoder=encoder,
        mel=MelConfig(features=128),
        vocabulary=vocabulary,
        predictor_width=640,
        predictor_layers=2,
        joint_width=640,
        durations=DURATIONS,
    )
    with torch.device(device):
        network = Network(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "pos_bias" in name:
            parameter.normal_(0, 0.1)
    return network


@torch.inference_mode()
def calibrate(network: Network, seconds: float = SECONDS) -> float:
    """Sets the blank's bias by bisection; returns the resulting tokens per second."""
    samples = torch.from_numpy(speech(seconds))[None]
    mel, frames = LogMel(network.config.mel)(samples, torch.tensor([samples.shape[1]]))
    encoded, counts = network.encode(mel.to(network.device), frames.to(network.device))
    assert network.joint is not None
    _separate_frames(network.joint, encoded)
    bias, low, high, rates = network.joint.head.bias, 0.0, 10.0, {}
    for _ in range(14):
        middle = (low + high) / 2
        bias[network.config.blank] = middle
        rates[middle] = _tokens(network, encoded, counts) / seconds
        low, high = (middle, high) if rates[middle] > TOKENS_PER_SECOND else (low, middle)
    best = min(rates, key=lambda value: abs(rates[value] - TOKENS_PER_SECOND))
    bias[network.config.blank] = best
    return rates[best]


def _separate_frames(joint: Joint, encoded: Tensor) -> None:
    """Removes the mean of a deep random network's frames and scales up their differences."""
    mean = encoded.mean((0, 1))
    joint.enc.weight.mul_(2 / joint.enc(encoded).std(1).mean())
    joint.enc.bias.copy_(-joint.enc.weight @ mean)
    joint.pred.weight.mul_(0.2)
    joint.head.weight.mul_(4)
    joint.head.bias[-len(DURATIONS)] = -100.0  # trained models rarely predict a duration of 0


def _tokens(network: Network, encoded: Tensor, counts: Tensor) -> int:
    tokens, _ = decode_transducer(network, encoded, counts)
    return int(tokens.counts.sum())


def random_live_checkpoint(
    layers: int, width: int = 1024, device: torch.device | str = "cpu", rights: Sequence[int] = LIVE_RIGHTS
) -> Checkpoint:
    """The shape of nemotron-speech-streaming-en-0.6b, with about three tokens per second."""
    torch.manual_seed(0)
    encoder = EncoderConfig(
        features=128,
        layers=layers,
        width=width,
        bias=False,
        causal_subsampling=True,
        causal_convolution=True,
        norm="layer_norm",
        style="chunked_limited",
        contexts=tuple(AttentionContext(LIVE_PAST, right) for right in rights),
    )
    config = NetworkConfig(
        encoder=encoder,
        mel=MelConfig(features=128, normalize="NA"),
        vocabulary=LIVE_VOCABULARY,
        predictor_width=640,
        predictor_layers=2,
        joint_width=640,
    )
    with torch.device(device):
        network = Network(config).eval().requires_grad_(False)
    _set_blank_bias(network)
    tensors = {name: tensor for name, tensor in network.state_dict().items() if is_learned(name)}
    tokenizer = read_tokenizer("tokenizer.model", make_tokenizer(LIVE_VOCABULARY), LIVE_VOCABULARY)
    return Checkpoint(config, tensors, tokenizer, name="random")


@torch.inference_mode()
def _set_blank_bias(network: Network) -> None:
    """Sets the blank's bias so that the share LIVE_BLANKS of frames is blank."""
    assert network.joint is not None
    predicted, _ = network.start(1)
    encoded = torch.randn(1, 256, network.config.encoder.width, device=network.device)
    logits = network.score(network.project(encoded), predicted)[0]
    margin = logits[:, :-1].amax(1) - logits[:, -1]
    network.joint.head.bias[network.config.blank] += margin.quantile(LIVE_BLANKS)


def make_tokenizer(vocabulary: int) -> bytes:
    """A SentencePiece model of artificial pieces; every third begins a word."""
    model = sentencepiece_model_pb2.ModelProto()
    piece = sentencepiece_model_pb2.ModelProto.SentencePiece
    model.trainer_spec.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
    model.trainer_spec.vocab_size = vocabulary
    model.trainer_spec.unk_id = 0
    model.trainer_spec.bos_id = model.trainer_spec.eos_id = model.trainer_spec.pad_id = -1
    model.normalizer_spec.name = "identity"
    model.pieces.add(piece="<unk>", score=0, type=piece.UNKNOWN)
    letters = "abcdefghijklmnop"
    for index in range(1, vocabulary):
        text = "".join(letters[(index >> shift) & 15] for shift in (12, 8, 4, 0))
        model.pieces.add(piece="▁" * (index % 3 == 0) + text, score=-float(index), type=piece.NORMAL)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
