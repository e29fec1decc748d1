"""NeMo's outputs for the three clips, by family, as named tensors and facts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tools.parity.families import PROMPT_DICTIONARY, Family
from tools.parity.nemo_decode import (
    MAX_SYMBOLS,
    Walk,
    decode_transducer,
    use_ctc_decoding,
    use_transducer_decoding,
    walk_greedily,
)
from tools.parity.nemo_stream import Streamed, stream_buffered, stream_cache_aware
from tools.parity.storage import Tensors, counts, padded, write_tensors

STREAMED_CLIP = 0
PROMPTED_LANGUAGES = ("en-US", "auto", "no")  # one for each clip
# left contexts so short that these clips outgrow the cache
SHORT_CONTEXTS = [[7, 6], [6, 1], [3, 0]]
# (left, chunk, right) in encoder steps; 5,3,2 has a chunk grid that does not fit its left context
UNIFIED_MASKS = [(70, 13, 13), (70, 7, 7), (70, 1, 0), (8, 4, 2), (5, 3, 2), (4, 1, 1), (6, 2, 0)]
UNIFIED_BUFFERS = [(70, 13, 13), (8, 4, 2), (5, 3, 2), (4, 1, 1)]


class Reference:
    """Collects one family's tensors and facts."""

    def __init__(self, model, family: Family, audio: torch.Tensor, lengths: torch.Tensor):
        self.model = model
        self.family = family
        self.audio = audio
        self.audio_lengths = lengths
        self.mel, self.mel_lengths = model.preprocessor(input_signal=audio, length=lengths)
        self.tensors: Tensors = {}
        self.facts: dict[str, Any] = {"mel": mel_name(family)}

    @property
    def is_tdt(self) -> bool:
        return self.family.head == "tdt"

    def encode(self, suffix: str = "") -> tuple[torch.Tensor, torch.Tensor]:
        """Input of the heads, in NeMo's layout [B, D, T], with the encoder's current context.

        That is the encoder's output, in a model with prompts after a different language prompt in each row.
        """
        encoded, lengths = self.encode_batch()
        if self.family.name != "nemotron_prompt":
            return encoded, lengths
        self.tensors["prompts"] = torch.tensor([PROMPT_DICTIONARY[language] for language in PROMPTED_LANGUAGES])
        self.tensors[f"unprompted{suffix}"] = encoded.transpose(1, 2)
        return self.model(
            processed_signal=self.mel,
            processed_signal_length=self.mel_lengths,
            prompt_indices=self.tensors["prompts"],
        )

    def encode_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Clip by clip with several global tokens, which would attend to other clips of a batch."""
        if self.family.encoder.get("global_tokens", 0) <= 1:
            return self.model.encoder(audio_signal=self.mel, length=self.mel_lengths)
        alone = [
            self.model.encoder(audio_signal=mel[None, :, :length], length=length[None])
            for mel, length in zip(self.mel, self.mel_lengths, strict=True)
        ]
        lengths = torch.cat([length for _, length in alone])
        longest = int(lengths.max())
        rows = [torch.nn.functional.pad(encoded, (0, longest - encoded.shape[2])) for encoded, _ in alone]
        return torch.cat(rows), lengths

    def streamed_mel(self) -> torch.Tensor:
        """The mel [1, M, F] of the one clip that is streamed."""
        return self.mel[STREAMED_CLIP : STREAMED_CLIP + 1, :, : int(self.mel_lengths[STREAMED_CLIP])]

    def add_encoder(self, suffix: str, encoded: torch.Tensor, lengths: torch.Tensor) -> None:
        """Store encoder output as [B, T, D]."""
        self.tensors[f"encoder{suffix}"] = encoded.transpose(1, 2)
        self.tensors[f"encoder_lengths{suffix}"] = lengths

    def add_transducer(self, suffix: str, encoded: torch.Tensor, lengths: torch.Tensor) -> None:
        """Store everything that greedy transducer decoding gives for [B, D, T]."""
        hypotheses = decode_transducer(self.model, encoded, lengths)
        walks = self.walk(suffix, encoded, lengths)
        check_walks(hypotheses, walks, self.is_tdt)
        self.tensors[f"token_confidence{suffix}"] = padded([h.token_confidence for h in hypotheses], torch.float32)
        if self.is_tdt:
            self.tensors[f"durations_batched{suffix}"] = self.batched_durations(encoded, lengths)
        self.add_words(suffix, hypotheses)

    def walk(self, suffix: str, encoded: torch.Tensor, lengths: torch.Tensor, limit: int = MAX_SYMBOLS) -> list[Walk]:
        """Store tokens, steps, durations and log-probabilities of plain greedy walks."""
        walks = [
            walk_greedily(self.model, row[:, :length].T, self.is_tdt, limit)
            for row, length in zip(encoded, lengths.tolist(), strict=True)
        ]
        tokens = [walk.tokens for walk in walks]
        self.tensors |= {
            f"tokens{suffix}": padded(tokens, torch.int64),
            f"token_counts{suffix}": counts(tokens),
            f"steps{suffix}": padded([walk.steps for walk in walks], torch.int64),
            f"token_log_probs{suffix}": padded([walk.log_probs for walk in walks], torch.float32),
        }
        if self.is_tdt:
            self.tensors[f"durations{suffix}"] = padded([walk.durations for walk in walks], torch.int64)
        self.facts[f"margin{suffix}"] = min(walk.margin for walk in walks)
        return walks

    def add_one_symbol_a_step(self, encoded: torch.Tensor, lengths: torch.Tensor) -> None:
        """Store tokens with at most one symbol on a step, so that the limit of tokens per step takes effect."""
        use_transducer_decoding(self.model, self.family, max_symbols=1)
        hypotheses = decode_transducer(self.model, encoded, lengths)
        check_walks(hypotheses, self.walk("_max1", encoded, lengths, limit=1), self.is_tdt)
        use_transducer_decoding(self.model, self.family)

    def add_stream(self, name: str, streamed: Streamed) -> None:
        """Store one stream of the one clip that is streamed."""
        walk = walk_greedily(self.model, streamed.encoder, self.is_tdt, MAX_SYMBOLS)
        if walk.tokens != streamed.tokens or walk.steps != streamed.steps:
            raise AssertionError(f"{name}: decoding in chunks gives {streamed.tokens}, at once {walk.tokens}")
        self.tensors |= {
            f"{name.replace('_', '_encoder_', 1)}": streamed.encoder,
            f"{name.replace('_', '_tokens_', 1)}": torch.tensor(streamed.tokens),
            f"{name.replace('_', '_steps_', 1)}": torch.tensor(streamed.steps),
        }
        self.facts[f"margin_{name}"] = walk.margin

    def batched_durations(self, encoded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Durations as NeMo records them in a batch of three, for the record of its fault."""
        decode = self.model.decoding.rnnt_decoder_predictions_tensor
        hypotheses = decode(encoded, lengths, return_hypotheses=True)
        return padded([torch.as_tensor(h.token_duration).tolist() for h in hypotheses], torch.int64)

    def add_words(self, suffix: str, hypotheses: list) -> None:
        """Store words with first and last step and confidence, and text, words and segments as facts."""
        words = [h.timestamp["word"] for h in hypotheses]
        self.tensors |= {
            f"word_counts{suffix}": counts(words),
            f"word_starts{suffix}": padded([[w["start_offset"] for w in row] for row in words], torch.int64),
            f"word_ends{suffix}": padded([[w["end_offset"] for w in row] for row in words], torch.int64),
            f"word_confidence{suffix}": padded([h.word_confidence for h in hypotheses], torch.float32),
        }
        self.facts[f"texts{suffix}"] = [h.text for h in hypotheses]
        self.facts[f"words{suffix}"] = [[w["word"] for w in row] for row in words]
        self.facts[f"segments{suffix}"] = [
            [[s["segment"], int(s["start_offset"]), int(s["end_offset"])] for s in h.timestamp["segment"]]
            for h in hypotheses
        ]

    def add_ctc(self, encoded: torch.Tensor, lengths: torch.Tensor) -> None:
        """Store the CTC head's log-probabilities and what greedy CTC decoding makes of them."""
        head = self.model.ctc_decoder if self.family.hybrid else self.model.decoder
        decoding = self.model.ctc_decoding if self.family.hybrid else self.model.decoding
        log_probs = head(encoder_output=encoded)
        hypotheses = decoding.ctc_decoder_predictions_tensor(
            decoder_outputs=log_probs, decoder_lengths=lengths, return_hypotheses=True
        )
        tokens = [[int(t) for t in collapse(h.y_sequence, decoding.blank_id)] for h in hypotheses]
        spans = [h.timestamp["char"] for h in hypotheses]
        self.tensors |= {
            "ctc_log_probs": log_probs,
            "ctc_ids": log_probs.argmax(-1),
            "ctc_tokens": padded(tokens, torch.int64),
            "ctc_token_counts": counts(tokens),
            "ctc_token_starts": padded([[int(c["start_offset"]) for c in row] for row in spans], torch.int64),
            "ctc_token_ends": padded([[int(c["end_offset"]) for c in row] for row in spans], torch.int64),
            "ctc_token_confidence": padded([h.token_confidence for h in hypotheses], torch.float32),
            "ctc_frame_confidence": padded([h.frame_confidence for h in hypotheses], torch.float32),
        }
        prefixed = Reference.__new__(Reference)
        prefixed.tensors, prefixed.facts = {}, {}
        prefixed.add_words("", hypotheses)
        self.tensors |= {f"ctc_{key}": value for key, value in prefixed.tensors.items()}
        self.facts |= {f"ctc_{key}": value for key, value in prefixed.facts.items()}
        best = log_probs.topk(2, dim=-1).values
        self.facts["ctc_margin"] = float((best[..., 0] - best[..., 1]).min())


def mel_name(family: Family) -> str:
    """The front-end's name in mel.safetensors."""
    return f"mel{family.mels}_{'plain' if family.streaming else 'per_feature'}"


def collapse(ids: list[int], blank: int) -> list[int]:
    """Merge repeats, drop blanks."""
    previous = [blank, *ids[:-1]]
    return [token for token, before in zip(ids, previous, strict=True) if token != before and token != blank]


def check_walks(hypotheses: list, walks: list[Walk], is_tdt: bool) -> None:
    """Checks that plain greedy decoding and NeMo's decoder agree."""
    for hypothesis, walk in zip(hypotheses, walks, strict=True):
        steps = torch.as_tensor(hypothesis.timestamp["timestep"]).tolist()
        same = hypothesis.y_sequence.tolist() == walk.tokens and steps == walk.steps
        if is_tdt:
            same = same and torch.as_tensor(hypothesis.token_duration).tolist() == walk.durations
        if not same:
            raise AssertionError(f"NeMo {hypothesis.y_sequence} {steps}, walk {walk}")


def variants(reference: Reference) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Every way the family's encoder is used, as suffix, output [B, D, T] and lengths.

    The context or the speakers stay set while the caller looks at them.
    """
    encoder = reference.model.encoder
    encoded, lengths = reference.encode()
    yield "", encoded, lengths
    before = encoder.att_context_size
    for suffix, context in contexts(reference.family).items():
        encoder.set_default_att_context_size(context)
        yield suffix, *reference.encode(suffix)
    encoder.set_default_att_context_size(before)
    if reference.family.name == "multitalker":
        for suffix, masks in speaker_masks(reference, encoded.shape[2]).items():
            reference.model.set_speaker_targets(*masks)
            yield suffix, *reference.encode()
        reference.model.clear_speaker_targets()


def contexts(family: Family) -> dict[str, list[int]]:
    """Attention contexts beside the offline one, by suffix."""
    if family.name == "unified":
        return {unified_suffix(context): list(context) for context in UNIFIED_MASKS}
    if not family.streaming:
        return {}
    supported = {f"_R{context[1]}": context for context in family.contexts}
    short = SHORT_CONTEXTS if family.name == "nemotron" else []
    return supported | {f"_L{context[0]}_R{context[1]}": context for context in short}


def unified_suffix(context: tuple[int, int, int]) -> str:
    """Left, chunk and right, such as _L70_C7_R13."""
    return "_L{}_C{}_R{}".format(*context)


def speaker_masks(reference: Reference, steps: int) -> dict[str, tuple]:
    """Masks of one speaker alone, of the speaker and the others, and masks shorter and longer than the clip."""
    generator = torch.Generator().manual_seed(5)
    speaker = torch.rand(3, steps, generator=generator)
    background = (torch.rand(3, steps, generator=generator) > 0.5).float()
    reference.tensors |= {"speaker_mask": speaker, "background_mask": background}
    return {
        "_speaker": (speaker, None),
        "_speaker_background": (speaker, background),
        "_short_masks": (speaker[:, 5:], background[:, 5:]),
        "_long_masks": (torch.cat([background, speaker], 1), torch.cat([speaker, background], 1)),
    }


def make_reference(model, family: Family, audio: torch.Tensor, lengths: torch.Tensor) -> Reference:
    """Compute everything for one family."""
    reference = Reference(model, family, audio, lengths)
    if family.head != "ctc":
        use_transducer_decoding(model, family)
    for suffix, encoded, steps in variants(reference):
        reference.add_encoder(suffix, encoded, steps)
        if family.head != "ctc":
            add_decoding(reference, suffix, encoded, steps)
    if family.head == "ctc" or family.hybrid:
        use_ctc_decoding(model, family)
        reference.add_ctc(*reference.encode())
    if family.name == "nemotron_prompt":
        reference.facts["prompt_dictionary"] = PROMPT_DICTIONARY
    reference.facts["state_dict"] = {key: list(value.shape) for key, value in model.state_dict().items()}
    return reference


def add_decoding(reference: Reference, suffix: str, encoded: torch.Tensor, steps: torch.Tensor) -> None:
    """Decode one variant, and stream a clip with its context."""
    family = reference.family
    reference.add_transducer(suffix, encoded, steps)
    if not suffix:
        reference.add_one_symbol_a_step(encoded, steps)
    if family.streaming and suffix in contexts(family):
        add_cache_aware_stream(reference, suffix, encoded[STREAMED_CLIP].T)
    for context in UNIFIED_BUFFERS if family.name == "unified" else []:
        if suffix == unified_suffix(context):
            add_buffered_stream(reference, suffix, context)


def add_cache_aware_stream(reference: Reference, suffix: str, offline: torch.Tensor) -> None:
    """NeMo's own stream of one clip, its chunk sizes, and how far it is from NeMo's own offline output."""
    model = reference.model
    finish = None
    if reference.family.name == "nemotron_prompt":
        model.set_inference_prompt(PROMPTED_LANGUAGES[STREAMED_CLIP])
        finish = model._apply_prompt_to_encoded
    streamed = stream_cache_aware(model, reference.streamed_mel(), finish)
    reference.add_stream(f"stream{suffix}", streamed)
    setup = model.encoder.streaming_cfg
    reference.facts[f"stream{suffix}"] = {
        "chunk_frames": list(setup.chunk_size),
        "shift_frames": list(setup.shift_size),
        "history_frames": list(setup.pre_encode_cache_size),
        "dropped_steps": setup.drop_extra_pre_encoded,
        "cached_steps": setup.last_channel_cache_size,
        "largest_difference_to_offline": float((offline[: len(streamed.encoder)] - streamed.encoder).abs().max()),
    }


def add_buffered_stream(reference: Reference, suffix: str, context: tuple[int, int, int]) -> None:
    """Buffered streaming of one clip."""
    clip = reference.audio[STREAMED_CLIP, : int(reference.audio_lengths[STREAMED_CLIP])]
    streamed, windows = stream_buffered(reference.model, clip, *context)
    reference.add_stream(f"buffered{suffix}", streamed)
    reference.tensors[f"buffered_windows{suffix}"] = windows


def save_mel(path: Path, reference: Reference) -> None:
    """Add this front-end's mel [B, F, M] to the one file that holds each front-end once."""
    stored = load_file(path) if path.exists() else {}
    name = reference.facts["mel"]
    stored[name] = reference.mel.clone()
    stored[f"{name}_lengths"] = reference.mel_lengths.clone()
    write_tensors(path, stored)
