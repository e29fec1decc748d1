"""What NeMo computes from a checkpoint, Conure computes: features, encoder, tokens, times, confidences."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conure.decoding.ctc import decode_ctc
from conure.decoding.emitted_token import ALPHA
from conure.decoding.transducer import decode_transducer
from conure.models.config import LEAD_FRAMES, AttentionContext
from conure.models.encoder_state import EncoderState
from conure.text.words import words_from_tokens
from conure.types import Token
from tests.parity.references import (
    CONVERTED,
    FAMILIES,
    RELATIVE,
    Reference,
    having,
    recordings,
    reference,
    relative_error,
)


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> Reference:
    return reference(request.param)


def families_with(tensor: str) -> pytest.MarkDecorator:
    """The test runs for the families that have this reference."""
    return pytest.mark.parametrize("family", having(tensor), indirect=True, scope="module")


def encode(family: Reference, context: AttentionContext | None = None) -> tuple[Tensor, Tensor]:
    return family.network.encode(*family.mel, prompts=family.prompts, context=context)


@torch.inference_mode()
def test_features(family: Reference) -> None:
    """Bands next to silent beside loud ones differ by how an FFT rounds.

    torch's is up to 3e-4 off what 64 bits give, and so is ours.
    """
    mel, frames = family.front(*recordings())
    expected, expected_frames = family.mel
    assert frames.tolist() == expected_frames.tolist()
    for row, count in enumerate(frames.tolist()):
        torch.testing.assert_close(mel[row, :count], expected[row, :count], atol=5e-4, rtol=0)
        assert float((mel[row, :count] - expected[row, :count]).abs().mean()) < 2e-6


@torch.inference_mode()
def test_encoder(family: Reference) -> None:
    encoded, counts = encode(family)
    assert counts.tolist() == family.tensors["encoder_lengths"].tolist()
    assert relative_error(encoded, family.tensors["encoder"], counts) < RELATIVE


def chunked_modes(family: Reference) -> list[tuple[str, AttentionContext]]:
    """Names such as R6, L7_R6 or L70_C7_R13, and what they stand for."""
    modes = []
    default = family.network.config.encoder.contexts[0]
    for name in sorted(family.tensors):
        if match := re.fullmatch(r"encoder_((?:L(\d+)_)?(?:C(\d+)_)?R(\d+))", name):
            label, left, chunk, right = match.groups()
            past = int(left) if left else default.left
            modes.append((label, AttentionContext(past, int(right), int(chunk) if chunk else None)))
    return modes


@torch.inference_mode()
def test_encoder_in_every_latency_mode(family: Reference) -> None:
    for label, context in chunked_modes(family):
        encoded, counts = encode(family, context)
        assert relative_error(encoded, family.tensors[f"encoder_{label}"], counts) < RELATIVE, label
        assert tokens_of(family, encoded, counts) == family.rows(f"tokens_{label}", f"token_counts_{label}")


def tokens_of(family: Reference, encoded: Tensor, counts: Tensor) -> list[list[int]]:
    tokens, _ = decode_transducer(family.network, encoded, counts)
    return [[token.id for token in row] for row in tokens]


@families_with("stream_encoder")
@torch.inference_mode()
def test_streamed_equals_nemo_offline(family: Reference) -> None:
    """Offline, because NeMo's own stream is inexact for R = 0 (its cached mel frames are not zero padding)."""
    for label, context in chunked_modes(family):
        encoded, counts = stream(family, context)
        assert counts.tolist() == family.tensors[f"encoder_lengths_{label}"].tolist()
        assert relative_error(encoded, family.tensors[f"encoder_{label}"], counts) < RELATIVE, label
        assert tokens_of(family, encoded, counts) == family.rows(f"tokens_{label}", f"token_counts_{label}")


def stream(family: Reference, context: AttentionContext) -> tuple[Tensor, Tensor]:
    chunk, encoder, (mel, frames) = context.right + 1, family.network.encoder, family.mel
    like = encoder.pre_encode.out.weight
    state = EncoderState.allocate(encoder.config, len(mel), context.left, like)
    positions = encoder.positions(context.left + chunk - 1, 1 - chunk)
    lead = torch.zeros(len(mel), LEAD_FRAMES, mel.shape[2])
    tail = torch.zeros(len(mel), 8 * chunk, mel.shape[2])
    mel = torch.cat([lead, mel, tail], 1)
    parts, total = [], torch.zeros_like(frames)
    for start in range(0, int(frames.max()) + LEAD_FRAMES, 8 * chunk):
        given = (frames + LEAD_FRAMES - start).clamp(0, 8 * chunk)
        encoded, counts, state = encoder.step(mel[:, start : start + 8 * chunk], given, state, positions)
        parts.append(family.network.apply_prompt(encoded, family.prompts))
        total += counts
    return torch.cat(parts, 1), total


@families_with("tokens")
@torch.inference_mode()
def test_tokens_steps_and_durations(family: Reference) -> None:
    tokens, _ = decode_transducer(family.network, *encode(family))
    assert tokens.counts.tolist() == family.tensors["token_counts"].tolist()
    assert [[t.id for t in row] for row in tokens] == family.rows("tokens", "token_counts")
    assert [[t.step for t in row] for row in tokens] == family.rows("steps", "token_counts")
    if "durations" in family.tensors:
        assert [[t.duration for t in row] for row in tokens] == family.rows("durations", "token_counts")


@families_with("tokens_max1")
@torch.inference_mode()
def test_a_limit_of_one_symbol_a_step(family: Reference) -> None:
    heads = copy.copy(family.network)
    heads.config = replace(heads.config, max_symbols=1)
    tokens, _ = decode_transducer(heads, *encode(family))
    assert [[t.id for t in row] for row in tokens] == family.rows("tokens_max1", "token_counts_max1")
    assert [[t.step for t in row] for row in tokens] == family.rows("steps_max1", "token_counts_max1")


def exponential(confidences: Tensor, vocabulary: int) -> Tensor:
    """Our confidences under NeMo's default mapping of the same entropy, exp(-H)."""
    largest = ((vocabulary + 1) ** (1 - ALPHA) - 1) / (1 - ALPHA)
    floor = math.exp(-largest)
    return ((-(1 - confidences) * largest).exp() - floor) / (1 - floor)


@families_with("token_confidence")
@torch.inference_mode()
def test_probabilities_and_confidences(family: Reference) -> None:
    tokens, _ = decode_transducer(family.network, *encode(family))
    for row, count in enumerate(tokens.counts.tolist()):
        close = {"atol": 1e-4, "rtol": 1e-4}
        torch.testing.assert_close(
            exponential(tokens.confidences[row, :count], family.network.config.vocabulary),
            family.tensors["token_confidence"][row, :count],
            **close,
        )
        torch.testing.assert_close(
            tokens.log_probabilities[row, :count], family.tensors["token_log_probs"][row, :count], **close
        )


@families_with("ctc_tokens")
@torch.inference_mode()
def test_ctc(family: Reference) -> None:
    encoded, counts = encode(family)
    log_probs = family.network.ctc_head(encoded).log_softmax(-1)
    assert relative_error(log_probs, family.tensors["ctc_log_probs"], counts) < RELATIVE
    tokens, _ = decode_ctc(family.network, encoded, counts)
    assert [[t.id for t in row] for row in tokens] == family.rows("ctc_tokens", "ctc_token_counts")
    for row, count in enumerate(tokens.counts.tolist()):
        expected = family.tensors["ctc_token_confidence"][row, :count]
        got = exponential(tokens.confidences[row, :count], family.network.config.vocabulary)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    # The places of Conure are where the labels are; NeMo's spans put a token's start at the end of the last.
    best = family.tensors["ctc_ids"]
    for row, emitted in enumerate(tokens):
        assert all(best[row, t.step : t.step + t.duration].eq(t.id).all() for t in emitted)


@families_with("word_confidence")
@torch.inference_mode()
def test_words(family: Reference) -> None:
    """As NeMo groups them, but without the tokens that are no text (ends of utterance, language tags)."""
    tokens, _ = decode_transducer(family.network, *encode(family))
    for row, emitted in enumerate(tokens):
        timed = [Token(t.id, t.step, t.step + t.duration, t.log_probability, t.confidence) for t in emitted]
        words = words_from_tokens(timed, family.checkpoint.tokenizer)
        assert [word.text for word in words] == [re.sub(r"<[^>]*>", "", word) for word in family.told["words"][row]]
        assert [word.start for word in words] == family.tensors["word_starts"][row, : len(words)].tolist()
        if not any("<" in word for word in family.told["words"][row]):
            expected = family.tensors["word_confidence"][row, : len(words)].tolist()
            got = exponential(torch.tensor([word.confidence for word in words]), family.network.config.vocabulary)
            assert got.tolist() == pytest.approx(expected, abs=1e-4)


@families_with("unprompted")
@torch.inference_mode()
def test_each_row_has_its_own_language(family: Reference) -> None:
    assert len(set(family.prompts.tolist())) > 1
    unprompted, counts = family.network.encode(*family.mel)
    assert relative_error(unprompted, family.tensors["unprompted"], counts) < RELATIVE
    encoded = family.network.apply_prompt(unprompted, family.prompts)
    assert relative_error(encoded, family.tensors["encoder"], counts) < RELATIVE
    for row, slot in enumerate(family.prompts.tolist()):
        alone = family.network.apply_prompt(unprompted[row : row + 1], torch.tensor([slot]))
        torch.testing.assert_close(alone[0], encoded[row], atol=1e-6, rtol=0)


@families_with("speaker_mask")
@torch.inference_mode()
def test_speaker_kernels_hear_the_speaker_who_is_asked_for(family: Reference) -> None:
    steps = family.tensors["encoder"].shape[1]
    wanted, others = (family.tensors[name][:, :steps] for name in ("speaker_mask", "background_mask"))
    for label, speakers in (
        ("speaker", (wanted, torch.zeros_like(wanted))),
        ("speaker_background", (wanted, others)),
    ):
        encoded, counts = family.network.encode(*family.mel, speakers=speakers)
        assert relative_error(encoded, family.tensors[f"encoder_{label}"], counts) < RELATIVE, label


@pytest.mark.parametrize("name", CONVERTED)
@torch.inference_mode()
def test_transformers_checkpoints(name: str) -> None:
    converted = reference(name)
    encoded, counts = encode(converted)
    assert counts.tolist() == converted.tensors["encoder_lengths"].tolist()
    assert relative_error(encoded, converted.tensors["encoder"], counts) < RELATIVE
    decode = decode_transducer if converted.network.predictor else decode_ctc
    tokens, _ = decode(converted.network, encoded, counts)
    assert [[token.id for token in row] for row in tokens] == converted.rows("tokens", "token_counts")
