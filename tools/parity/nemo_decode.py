"""Greedy decoding with NeMo's own decoders, and the scores that NeMo does not return."""

from dataclasses import dataclass, field

import torch
from nemo.collections.asr.parts.submodules.ctc_decoding import CTCBPEDecodingConfig
from nemo.collections.asr.parts.submodules.rnnt_decoding import RNNTBPEDecodingConfig
from nemo.collections.asr.parts.utils.rnnt_utils import batched_hyps_to_hypotheses
from omegaconf import OmegaConf

from tools.parity.families import DURATIONS, Family

MAX_SYMBOLS = 10
CONFIDENCE = {
    "preserve_frame_confidence": True,
    "preserve_token_confidence": True,
    "preserve_word_confidence": True,
}


@dataclass
class Walk:
    """Results of plain greedy decoding of one row."""

    tokens: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    margin: float = float("inf")


def use_transducer_decoding(model, family: Family, max_symbols: int = MAX_SYMBOLS) -> None:
    """Configures NeMo's greedy transducer decoder to return times, durations and confidences."""
    config = OmegaConf.structured(RNNTBPEDecodingConfig())
    config.strategy = "greedy_batch"
    config.compute_timestamps = True
    config.greedy.max_symbols_per_step = max_symbols
    config.greedy.use_cuda_graph_decoder = False
    config.confidence_cfg = OmegaConf.merge(config.confidence_cfg, CONFIDENCE)
    if family.head == "tdt":
        config.model_type = "tdt"
        config.durations = DURATIONS
        config.tdt_include_token_duration = True
    if family.hybrid:
        model.change_decoding_strategy(config, decoder_type="rnnt", verbose=False)
    else:
        model.change_decoding_strategy(config, verbose=False)


def use_ctc_decoding(model, family: Family) -> None:
    """Configures NeMo's greedy CTC decoder to return times and confidences."""
    config = OmegaConf.structured(CTCBPEDecodingConfig())
    config.strategy = "greedy_batch"
    config.compute_timestamps = True
    config.confidence_cfg = OmegaConf.merge(config.confidence_cfg, CONFIDENCE)
    if family.hybrid:
        model.change_decoding_strategy(config, decoder_type="ctc", verbose=False)
    else:
        model.change_decoding_strategy(config, verbose=False)


def decode_transducer(model, encoded: torch.Tensor, lengths: torch.Tensor) -> list:
    """NeMo's hypotheses for encoder output [B, D, T], with durations as a batch of one gives them.

    In a batch the TDT label loop keeps searching for rows that are not done, and overwrites the durations of rows
    that are: tokens, steps and confidences do not depend on the batch, recorded durations do.
    """
    batched = model.decoding.rnnt_decoder_predictions_tensor(encoded, lengths, return_hypotheses=True)
    single = [
        model.decoding.rnnt_decoder_predictions_tensor(
            encoded[row : row + 1, :, :length], lengths[row : row + 1], return_hypotheses=True
        )[0]
        for row, length in enumerate(lengths.tolist())
    ]
    for together, alone in zip(batched, single, strict=True):
        if together.y_sequence.tolist() != alone.y_sequence.tolist():
            raise AssertionError("the tokens of a row depend on its batch")
    return single


def walk_greedily(model, encoded: torch.Tensor, is_tdt: bool, max_symbols: int) -> Walk:
    """Decode one row [T, D] symbol by symbol through NeMo's own networks, keeping log-probabilities and margins.

    A simple reference implementation of the batched decoder. The margin is the smallest distance between the best and
    the second best logit of all decisions, which bounds the numeric differences that cannot change a token.
    """
    walk = Walk()
    blank = model.decoding.blank_id
    projected = model.joint.project_encoder(encoded.unsqueeze(0))
    predicted, state = predict(model, blank, None)
    step, symbols = 0, 0
    while step < encoded.shape[0]:
        logits = model.joint.joint_after_projection(projected[:, step : step + 1], predicted).flatten()
        token, log_prob, duration = read_logits(logits, blank, is_tdt, walk)
        if token == blank:
            step, symbols = step + max(duration, 1), 0
            continue
        walk.tokens.append(token)
        walk.steps.append(step)
        walk.durations.append(duration)
        walk.log_probs.append(log_prob)
        predicted, state = predict(model, token, state)
        symbols = 0 if duration else symbols + 1
        step += duration
        if not duration and symbols >= max_symbols:
            step, symbols = step + 1, 0
    return walk


def predict(model, token: int, state):
    """One step of the prediction network, projected for the joint."""
    output, state, *_ = model.decoder.predict(torch.tensor([[token]]), state, add_sos=False, batch_size=1)
    return model.joint.project_prednet(output), state


def read_logits(logits: torch.Tensor, blank: int, is_tdt: bool, walk: Walk) -> tuple[int, float, int]:
    """Best token, its log-probability among tokens and blank, and its duration (0 for RNNT)."""
    symbols = logits[: blank + 1].log_softmax(-1)
    token = int(symbols.argmax())
    walk.margin = min(walk.margin, margin(symbols))
    duration = 0
    if is_tdt:
        durations = logits[blank + 1 :]
        duration = DURATIONS[int(durations.argmax())]
        walk.margin = min(walk.margin, margin(durations))
    return token, float(symbols[token]), duration


def margin(scores: torch.Tensor) -> float:
    """Distance between the best and the second best score."""
    best = scores.topk(2).values
    return float(best[0] - best[1])


def decode_chunk(model, encoded: torch.Tensor, state):
    """Continue NeMo's label looping over one chunk [1, T, D]; returns tokens, steps and the new state."""
    lengths = torch.tensor([encoded.shape[1]])
    hypotheses, state = model.decoding.decoding.decoding_computer(encoded, lengths, state)
    hypothesis = batched_hyps_to_hypotheses(hypotheses, batch_size=1)[0]
    return hypothesis.y_sequence.tolist(), torch.as_tensor(hypothesis.timestamp).tolist(), state
