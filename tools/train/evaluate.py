"""Word error rates of both heads on fixed, seeded sets that are not used in training.

Three sets: strings of 2-10 words by held-out real speakers, held-out synthesised phrases, and noise or silence, where
each word is an error. The sets depend only on the clips and a seed. `export` writes a few strings as files for tests.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import torch
from torch import Tensor

from conure.audio.features import LogMel
from conure.decoding.ctc import decode_ctc
from conure.decoding.transducer import decode_transducer
from conure.models.config import AttentionContext
from conure.models.network import Network
from tools.train.acoustics import Noises
from tools.train.corpus import SAMPLE_RATE, UNNAMED_SPEAKERS, Clip
from tools.train.strings import Example, concatenate
from tools.train.tokenizer import Tokenizer

# Mostly digits, since the only held-out speaker with many clips says digits.
_REAL_SHARES = {"fsdd": 0.6, "dsp20_en": 0.2, "speech_commands": 0.15, "an4": 0.05}


@dataclass(frozen=True)
class Utterance:
    name: str
    text: str
    samples: np.ndarray  # float32


@dataclass(frozen=True)
class Score:
    """Word error rates of the two heads; for the silent set, words per utterance."""

    transducer: float
    ctc: float


def real_strings(clips: Sequence[Clip], count: int, seed: int = 7) -> list[Utterance]:
    """Strings of 2-10 words by held-out speakers (one a string, where one has enough clips), unaugmented."""
    rng = np.random.default_rng(seed)
    utterances = []
    for collection, share in _REAL_SHARES.items():
        pools = list(_held_out(clips, collection).values())
        for index in range(round(count * share) if pools else 0):
            utterances.append(_string(f"{collection}-{index:03d}", pools[index % len(pools)], rng))
    return utterances


def _held_out(clips: Sequence[Clip], collection: str) -> dict[str, list[Clip]]:
    """The collection's held-out clips by speaker."""
    pools: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.split == "dev" and clip.collection == collection and collection not in UNNAMED_SPEAKERS:
            pools.setdefault(clip.speaker, []).append(clip)
    return _merge_small(dict(sorted(pools.items())))


def _merge_small(pools: dict[str, list[Clip]], enough: int = 20) -> dict[str, list[Clip]]:
    """Speakers with few clips share a pool, so that strings are not one clip repeated."""
    merged = {name: pool for name, pool in pools.items() if len(pool) >= enough}
    rest = [clip for name in sorted(pools) if name not in merged for clip in pools[name]]
    return {**merged, "several": rest} if rest else merged


def _string(name: str, pool: Sequence[Clip], rng: np.random.Generator) -> Utterance:
    count = int(rng.integers(2, 11))
    chosen: list[Clip] = []
    while sum(len(clip.words) for clip in chosen) < count:
        chosen.append(pool[rng.integers(len(pool))])
    return _utterance(name, concatenate(chosen, rng))


def _utterance(name: str, example: Example) -> Utterance:
    return Utterance(name, " ".join(span.word for span in example.spans), example.samples)


def phrases(clips: Sequence[Clip], count: int, seed: int = 8) -> list[Utterance]:
    """Held-out phrases, one at a time."""
    rng = np.random.default_rng(seed)
    pool = [clip for clip in clips if clip.split == "dev" and clip.collection == "phrases"]
    chosen = rng.choice(len(pool), min(count, len(pool)), replace=False)
    return [_utterance(f"phrase-{i:03d}", concatenate([pool[k]], rng)) for i, k in enumerate(chosen)]


def silences(count: int, seed: int = 9) -> list[Utterance]:
    """Coloured noise at many levels and digital silence."""
    rng = np.random.default_rng(seed)
    noises = Noises(rng, rng.standard_normal(SAMPLE_RATE), seconds=10.0)
    utterances = []
    for index in range(count):
        length = int(rng.uniform(0.5, 5.0) * SAMPLE_RATE)
        level = 0.0 if index % 6 == 0 else 10 ** rng.uniform(-4.0, -1.0)
        utterances.append(Utterance(f"silence-{index:03d}", "", noises.cut(length, rng) * np.float32(level)))
    return utterances


class Recogniser:
    """Both heads, whole clips in batches."""

    def __init__(self, network: Network, mel: LogMel, tokenizer: Tokenizer) -> None:
        self.network, self.mel, self.tokenizer = network, mel, tokenizer

    @torch.inference_mode()
    def transcribe(
        self, utterances: Sequence[Utterance], context: AttentionContext | None = None
    ) -> tuple[list[str], list[str]]:
        """Texts by the transducer and by the CTC head, in order."""
        self.network.eval()
        order = sorted(range(len(utterances)), key=lambda i: len(utterances[i].samples))
        transducer, ctc = [""] * len(order), [""] * len(order)
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            encoded, steps = self._encode([utterances[i].samples for i in rows], context)
            for texts, tokens in (
                (transducer, decode_transducer(self.network, encoded, steps)[0]),
                (ctc, decode_ctc(self.network, encoded, steps)[0]),
            ):
                for i, emitted in zip(rows, tokens, strict=True):
                    texts[i] = self.tokenizer.text([token.id for token in emitted])
        return transducer, ctc

    def _encode(self, clips: list[np.ndarray], context: AttentionContext | None) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(clip) for clip in clips], device=self.network.device)
        samples = torch.zeros(len(clips), int(lengths.max()))
        for row, clip in enumerate(clips):
            samples[row, : len(clip)] = torch.from_numpy(clip)
        mel, frames = self.mel(samples.to(self.network.device), lengths)
        return self.network.encode(mel, frames, context=context)


class Evaluation:
    """The three sets, fixed at construction."""

    def __init__(self, clips: Sequence[Clip], size: int) -> None:
        self.sets = {
            "real": real_strings(clips, size),
            "phrases": phrases(clips, size),
            "silence": silences(max(12, size // 5)),
        }

    def run(self, recogniser: Recogniser) -> dict[str, Score]:
        return {name: _score(utterances, recogniser) for name, utterances in self.sets.items()}

    def report(self, recogniser: Recogniser) -> dict[str, object]:
        """Rates by set and collection, with every context that the network knows, and the first one's confusions."""
        contexts = recogniser.network.config.encoder.contexts
        result = self._report(recogniser, contexts[0])
        for context in contexts[1:]:
            hypotheses = self._report(recogniser, context)
            hypotheses.pop("confusions")
            result[f"{context.left}, {context.right}"] = hypotheses
        return result

    def _report(self, recogniser: Recogniser, context: AttentionContext) -> dict[str, object]:
        result: dict[str, object] = {}
        confusions: Counter[str] = Counter()
        for name, utterances in self.sets.items():
            transducer, ctc = recogniser.transcribe(utterances, context)
            for group, indices in _groups(name, utterances).items():
                truth = [utterances[i].text for i in indices]
                result[group] = {
                    "utterances": len(indices),
                    "words": sum(len(text.split()) for text in truth),
                    "transducer": error_rate(truth, [transducer[i] for i in indices]),
                    "ctc": error_rate(truth, [ctc[i] for i in indices]),
                }
            for utterance, hypotheses in zip(utterances, transducer, strict=True):
                confusions.update(_confusions(utterance.text, hypotheses))
        result["confusions"] = dict(confusions.most_common(40))
        return result


def _groups(name: str, utterances: Sequence[Utterance]) -> dict[str, list[int]]:
    """The whole set, and its parts by what precedes the number in the utterances' names."""
    groups: dict[str, list[int]] = {name: list(range(len(utterances)))}
    for index, utterance in enumerate(utterances):
        part = utterance.name.rsplit("-", 1)[0]
        groups.setdefault(f"{name}/{part}", []).append(index)
    return groups if len(groups) > 2 else {name: groups[name]}


def _score(utterances: Sequence[Utterance], recogniser: Recogniser) -> Score:
    transducer, ctc = recogniser.transcribe(utterances)
    truth = [utterance.text for utterance in utterances]
    return Score(error_rate(truth, transducer), error_rate(truth, ctc))


def error_rate(truth: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word error rate; without reference words, words per utterance."""
    if not any(truth):
        return sum(len(text.split()) for text in hypotheses) / max(1, len(hypotheses))
    return float(jiwer.wer(list(truth), list(hypotheses)))


def _confusions(truth: str, hypotheses: str) -> list[str]:
    if not truth:
        return [f"(nothing) -> {word}" for word in hypotheses.split()]
    aligned = jiwer.process_words(truth, hypotheses)
    reference_words, hypothesis_words = truth.split(), hypotheses.split()
    found = []
    for chunk in aligned.alignments[0]:
        if chunk.type != "equal":
            expected = " ".join(reference_words[chunk.ref_start_idx : chunk.ref_end_idx])
            recognised = " ".join(hypothesis_words[chunk.hyp_start_idx : chunk.hyp_end_idx])
            found.append(f"{expected or '(nothing)'} -> {recognised or '(nothing)'}")
    return found


def export(clips: Sequence[Clip], folder: Path, count: int = 40) -> None:
    """Write a small part of the real and phrase sets as FLAC plus `texts.json` {file: text}."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    for utterance in [*real_strings(clips, count), *phrases(clips, count // 2)]:
        name = f"{utterance.name}.flac"
        soundfile.write(folder / name, utterance.samples, SAMPLE_RATE, subtype="PCM_16")
        texts[name] = utterance.text
    (folder / "texts.json").write_text(json.dumps(texts, indent=1) + "\n")
