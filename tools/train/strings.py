"""Training examples: concatenated clips with known word positions.

Clips are drawn from pools (one per speaker and collection), concatenated and augmented, by one seeded generator. This
runs in the training process: a string takes a few milliseconds, less than a worker process would cost the training.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tools.train.acoustics import Channels, Noises, companded, resample
from tools.train.corpus import SAMPLE_RATE, Clip
from tools.train.synthesis import DIGITS
from tools.train.tokenizer import END, Tokenizer

STEP_SAMPLES = 1280  # one encoder step
DIGIT_COLLECTIONS = ("fsdd", "digits")
PHRASES = ("phrases", "ljspeech", "vctk", "misc_sentences")
# Relative frequency of each speaker of a collection.
_WEIGHTS = {
    "fsdd": 8.0, "an4": 0.6, "speech_commands": 1.0, "dsp20_en": 0.6, "ros_commands": 4.0,
    "wakewords_pv": 3.0, "mycroft_words": 3.0, "words": 0.6, "digits": 0.4,
    "phrases": 20.0, "ljspeech": 2.0, "vctk": 0.5, "misc_sentences": 0.3,
}  # fmt: skip
_LONG_PAUSE = (0.75, 1.6)  # seconds; shorter ones do not end an utterance
_END_AFTER = int(0.48 * SAMPLE_RATE)  # time into a pause after which it is longer than any short one
_LAST_ENDS, _INNER_ENDS = 0.7, 0.12  # probability that the last clip, or another one, ends an utterance
_FLITE_FACTOR = 4.0  # flite's four voices come from recorded people, espeak's sixty from one rule set


@dataclass(frozen=True)
class Stage:
    """Difficulty of the examples."""

    max_words: int = 10  # in a string of words
    augment: bool = True
    phrase_share: float = 0.5
    empty_share: float = 0.03
    digits_only: bool = False
    seconds: float = 64.0  # of padded audio in one update, over all processes


@dataclass(frozen=True)
class Span:
    """The samples of a word."""

    start: int
    end: int
    word: str


@dataclass(frozen=True)
class Example:
    samples: np.ndarray  # float32
    spans: list[Span]


@dataclass(frozen=True)
class Batch:
    samples: Tensor  # [B, N]
    lengths: Tensor  # [B]
    labels: Tensor  # [B, U]
    label_lengths: Tensor  # [B]
    frames: Tensor  # [B, N // 1280 + 1]: the token at each encoder step, blank between words


class StringMaker:
    """Draws examples from pools of clips. The first generator also creates the banks of rooms and noises."""

    def __init__(self, clips: Sequence[Clip], rng: np.random.Generator, marks_ends: bool = False) -> None:
        self.rng, self.marks_ends = rng, marks_ends
        self.pools = _pools(clips)
        self.drawn = {
            "phrases": self._odds([key for key in self.pools if key[0] in PHRASES]),
            "words": self._odds([key for key in self.pools if key[0] not in PHRASES]),
            "digits": self._odds([key for key in self.pools if key[0] in DIGIT_COLLECTIONS]),
        }
        self.channels = Channels(self.rng)
        self.noises = Noises(self.rng, self._babble())
        self.pending: list[Example] = []

    def restart(self, rng: np.random.Generator) -> None:
        """Discard pending examples and use another generator."""
        self.rng, self.pending = rng, []

    def _odds(self, keys: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], np.ndarray]:
        weights = np.array([_weight(*key) for key in keys])
        return keys, weights / weights.sum()

    def _babble(self, voices: int = 6, seconds: float = 30.0) -> np.ndarray:
        """A mixture of several speakers."""
        mixture = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
        for _ in range(voices):
            start = 0
            while start < len(mixture):
                samples = _float(self._draw(self._pool("phrases")).samples)[: len(mixture) - start]
                mixture[start : start + len(samples)] += samples
                start += len(samples)
        return mixture

    def _pool(self, kind: str) -> list[Clip]:
        keys, odds = self.drawn[kind]
        return self.pools[keys[self.rng.choice(len(keys), p=odds)]]

    def _draw(self, pool: list[Clip]) -> Clip:
        return pool[self.rng.integers(len(pool))]

    def example(self, stage: Stage) -> Example:
        kind = self.rng.random()
        if stage.augment and kind < stage.empty_share:
            return self._empty()
        if self.rng.random() < stage.phrase_share:
            return self._phrase_string(stage)
        return self._word_string(stage)

    def _empty(self) -> Example:
        """Noise or digital silence without speech, and so without babble."""
        length = int(self.rng.uniform(0.4, 4.0) * SAMPLE_RATE)
        if self.rng.random() < 0.25:
            return Example(np.zeros(length, np.float32), [])
        noise = self.noises.noises[self.rng.integers(len(self.noises.noises) - 1)]
        start = self.rng.integers(len(noise) - length)
        level = 10 ** self.rng.uniform(-4.0, -0.8)
        return Example(noise[start : start + length] * np.float32(level), [])

    def _word_string(self, stage: Stage) -> Example:
        rng = self.rng
        count = int(rng.integers(1, stage.max_words + 1))
        kind = "digits" if stage.digits_only else "words"
        pool = self._pool(kind)
        mixed = rng.random() < 0.2
        clips: list[Clip] = []
        while sum(len(clip.words) for clip in clips) < count:
            clips.append(self._draw(self._pool(kind) if mixed else pool))
        speed = float(rng.uniform(0.8, 1.25)) if stage.augment else 1.0
        example = concatenate(clips, rng, speed, jitter=0.06 if stage.augment else 0.0, marks_ends=self.marks_ends)
        return self._disturb(example, 0.55, (4.0, 40.0)) if stage.augment else example

    def _phrase_string(self, stage: Stage) -> Example:
        rng = self.rng
        pool = self._pool("phrases")
        clips = [self._draw(pool)]
        while stage.max_words > 6 and len(clips[-1].samples) < 2 * SAMPLE_RATE and rng.random() < 0.5:
            clips.append(self._draw(pool))
        speed = float(rng.uniform(0.9, 1.12)) if stage.augment else 1.0
        example = concatenate(clips, rng, speed, marks_ends=self.marks_ends)
        return self._disturb(example, 0.25, (10.0, 45.0)) if stage.augment else example

    def _disturb(self, example: Example, channel_share: float, decibels: tuple[float, float]) -> Example:
        rng, samples = self.rng, example.samples
        if rng.random() < channel_share:
            samples = self.channels.apply(samples, rng)
        if rng.random() < 0.85:
            samples = self.noises.add(samples, float(rng.uniform(*decibels)), rng)
        if rng.random() < 0.05:
            samples = companded(samples)
        level = rng.uniform(0.03, 0.95) / (np.abs(samples).max() + 1e-6)
        return Example((samples * level).astype(np.float32), example.spans)

    def batch(self, stage: Stage, seconds: float, tokenizer: Tokenizer, delay: int = 0, pending: int = 128) -> Batch:
        """A batch of strings of similar lengths, `seconds` of padded audio.

        The oldest pending string is batched with pending strings that are just shorter.
        """
        while len(self.pending) < pending:
            self.pending.append(self.example(stage))
        oldest = self.pending[0]
        count = max(1, int(seconds * SAMPLE_RATE / len(oldest.samples)))
        shorter = [example for example in self.pending[1:] if len(example.samples) <= len(oldest.samples)]
        shorter.sort(key=lambda example: -len(example.samples))
        chosen = [oldest, *shorter[: count - 1]]
        chosen_ids = {id(example) for example in chosen}
        self.pending = [example for example in self.pending if id(example) not in chosen_ids]
        return collate(chosen, tokenizer, delay)


def concatenate(
    clips: Sequence[Clip],
    rng: np.random.Generator,
    speed: float = 1.0,
    jitter: float = 0.0,
    marks_ends: bool = False,
) -> Example:
    """Clips with pauses between and around them; the words of a clip divide its span by their number of letters.

    With `marks_ends` some pauses are long and contain END.
    """
    parts = [_pause(rng, 0.05, 0.5)]
    spans: list[Span] = []
    position = len(parts[0])
    for index, clip in enumerate(clips, 1):
        samples = _float(clip.samples)
        samples *= rng.uniform(0.35, 0.9) / (np.abs(samples).max() + 1e-4)
        if speed != 1.0 or jitter > 0.0:
            samples = resample(samples, speed * rng.uniform(1 - jitter, 1 + jitter))
        spans += _spans(clip.words, position, len(samples))
        position += len(samples)
        ends = marks_ends and rng.random() < (_LAST_ENDS if index == len(clips) else _INNER_ENDS)
        pause = _pause(rng, *_LONG_PAUSE) if ends else _pause(rng, 0.0, 0.35)
        if ends:
            spans.append(Span(position + _END_AFTER, position + _END_AFTER + STEP_SAMPLES, END))
        parts += [samples, pause]
        position += len(pause)
    parts.append(_pause(rng, 0.0, 0.3))
    return Example(np.concatenate(parts), spans)


def collate(examples: Sequence[Example], tokenizer: Tokenizer, delay: int = 0) -> Batch:
    """Pad examples into tensors and place every word's tokens evenly over its span, `delay` steps late."""
    blank = tokenizer.size
    longest = max(len(example.samples) for example in examples)
    longest = -(-longest // (4 * STEP_SAMPLES)) * 4 * STEP_SAMPLES  # few distinct shapes
    samples = torch.zeros(len(examples), longest)
    frames = torch.full((len(examples), longest // STEP_SAMPLES + 1), blank)
    tokens = []
    for row, example in enumerate(examples):
        samples[row, : len(example.samples)] = torch.from_numpy(example.samples)
        tokens.append([token for span in example.spans for token in tokenizer.word(span.word)])
        for span in example.spans:
            _place(frames[row], span, tokenizer.word(span.word), 0 if span.word == END else delay)
    label_lengths = torch.tensor([len(row) for row in tokens])
    labels = torch.zeros(len(examples), max(1, int(label_lengths.max())), dtype=torch.long)
    for row, ids in enumerate(tokens):
        labels[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    lengths = torch.tensor([len(example.samples) for example in examples])
    return Batch(samples, lengths, labels, label_lengths, frames)


def _place(frames: Tensor, span: Span, tokens: Sequence[int], delay: int) -> None:
    first = int(span.start / STEP_SAMPLES + 0.5) + delay
    last = max(first + 1, int(span.end / STEP_SAMPLES) + delay)
    for i, token in enumerate(tokens):
        begin = first + (last - first) * i // len(tokens)
        frames[begin : first + (last - first) * (i + 1) // len(tokens)] = token


def _pools(clips: Sequence[Clip]) -> dict[tuple[str, str], list[Clip]]:
    pools: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.split != "train" or len(clip.samples) > 7 * SAMPLE_RATE:
            continue
        collection = "digits" if clip.collection == "words" and clip.text in DIGITS else clip.collection
        pools[collection, clip.speaker].append(clip)
    return dict(pools)


def _weight(collection: str, speaker: str) -> float:
    synthetic = collection in ("words", "digits")
    return _WEIGHTS[collection] * (_FLITE_FACTOR if synthetic and speaker.startswith("flite") else 1.0)


def _spans(words: Sequence[str], start: int, length: int) -> list[Span]:
    bounds = np.cumsum([0, *(len(word) + 1 for word in words)])
    bounds = start + bounds * length // bounds[-1]
    return [Span(int(a), int(b), word) for a, b, word in zip(bounds[:-1], bounds[1:], words, strict=True)]


def _pause(rng: np.random.Generator, shortest: float, longest: float) -> np.ndarray:
    length = int(rng.uniform(shortest, longest) * SAMPLE_RATE)
    return rng.standard_normal(length, dtype=np.float32) * np.float32(1e-4)


def _float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768.0
