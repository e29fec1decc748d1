"""Live streams of a model that transcribes whole clips: every word comes once, and partials stay within their bound."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.backends.registry import open_clip_runner
from conure.engine.lanes.clips import transcribe_clips
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.lanes.utterance import FACTOR, WINDOW
from conure.engine.messages import (
    Failed,
    Finished,
    Marker,
    PartialTokens,
    SpeechStarted,
    StreamEvent,
    StreamOptions,
    StreamTokens,
    UtteranceEnded,
)
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token, Word
from conure.vad.endpointing import Endpointing
from conure.vad.silero import load_silero
from tests.engine.known_words import TOKENIZER, KnowingRunner
from tests.engine.scarce import ScarceRunner
from tests.vad.digits import NAMES, RATE, SPEAKERS, recording, spoken

DATA = Path(__file__).parents[1] / "data"


@dataclass
class LaneRecorder:
    """Sends audio to a lane and collects its events."""

    lane: SegmentLane
    answers: list[StreamEvent] = field(default_factory=list)
    partial_seconds: float = 0.0
    """Seconds of audio decoded for partials."""

    def open(self, number: int, **options: object) -> None:
        assert self.lane.open(number, StreamOptions("m", **options))  # type: ignore[arg-type]

    def step(self, chance: random.Random, now: float) -> bool:
        works = self.lane.ready_work()
        if not works:
            return False
        required = [work for work in works if not work.is_optional]
        chosen = chance.choice(required or works)
        runner = self.lane.runner
        before = runner.seconds if isinstance(runner, KnowingRunner) else 0.0
        self.answers += self.lane.run([work.stream for work in works if work.kind == chosen.kind], now)
        if chosen.is_optional and isinstance(runner, KnowingRunner):
            self.partial_seconds += runner.seconds - before
        return True

    def send(self, number: int, samples: np.ndarray, chance: random.Random, packets: tuple[int, ...] = (1600,)) -> None:
        at = 0
        while at < len(samples):
            size = chance.choice(packets)
            self.lane.push(number, samples[at : at + size], at / RATE)
            at += size
            while self.step(chance, at / RATE):
                pass

    def finish(self, number: int, marker: int | None = None) -> None:
        chance = random.Random(0)
        self.lane.finalize(number, marker, 0.0)
        while self.step(chance, 0.0):
            pass

    def tokens(self, number: int = 0) -> list[Token]:
        return [t for a in self.answers if isinstance(a, StreamTokens) and a.stream == number for t in a.tokens]

    def text(self, tokenizer: Tokenizer = TOKENIZER, number: int = 0) -> str:
        return text(self.tokens(number), tokenizer)


def text(tokens: list[Token] | tuple[Token, ...], tokenizer: Tokenizer) -> str:
    return " ".join(word.text for word in words_from_tokens(tokens, tokenizer))


def recorder_for(*recordings: tuple[np.ndarray, list], slots: int = 4, jitter: float = 0.0) -> LaneRecorder:
    return LaneRecorder(SegmentLane(KnowingRunner(recordings, jitter), load_silero(), TOKENIZER, slots))  # type: ignore[arg-type]


def digits(count: int, low: float, high: float, seed: int, first: float | None = None) -> list[tuple[float, int, str]]:
    chance = random.Random(seed)
    speaker = chance.choice(SPEAKERS)
    parts = [(chance.uniform(low, high), chance.randrange(10), speaker) for _ in range(count)]
    return parts if first is None else [(first, *parts[0][1:]), *parts[1:]]


PAUSES = {"none": (0.0, 0.0), "short": (0.05, 0.5), "at the limit": (0.4, 0.9), "long": (1.0, 6.0)}


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_word_is_emitted_once(pause: str, seed: int) -> None:
    """The first one at the beginning, the last one cut off by the end of the stream."""
    samples, words = recording(digits(30, *PAUSES[pause], seed, first=0.0), seed=seed)
    recorder, chance = recorder_for((samples, words), jitter=0.05), random.Random(seed)
    recorder.open(0, latency_ms=560, endpointing=Endpointing(longest=6.0))
    recorder.send(0, samples, chance, (160, 1_000, 3_200, 20_000))
    recorder.finish(0)
    assert recorder.text() == " ".join(word.text for word in words)
    assert isinstance(recorder.answers[-1], Finished)
    reasons = {answer.reason for answer in recorder.answers if isinstance(answer, UtteranceEnded)}
    assert {"none": "length", "short": "length"}.get(pause, "silence") in reasons


def test_tokens_belong_to_their_utterance() -> None:
    samples, words = recording(digits(25, 0.1, 1.5, 3))
    recorder = recorder_for((samples, words))
    recorder.open(0, endpointing=Endpointing(longest=5.0))
    recorder.send(0, samples, random.Random(0))
    recorder.finish(0)
    boundaries = [answer for answer in recorder.answers if isinstance(answer, SpeechStarted | UtteranceEnded)]
    assert len(boundaries) >= 8
    assert all(isinstance(event, (SpeechStarted, UtteranceEnded)[index % 2]) for index, event in enumerate(boundaries))
    reached = 0.0
    for answer in recorder.answers:
        if isinstance(answer, StreamTokens):
            assert answer.until >= reached
            assert all(token.end >= reached - 0.5 and token.start <= answer.until for token in answer.tokens)
            reached = answer.until


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_single_short_quiet_word_is_transcribed(speaker: str) -> None:
    for digit in range(10):
        word = spoken(digit, speaker)
        for samples in (word, word * 0.05, np.concatenate([np.zeros(3 * RATE, np.float32), word * 0.3])):
            noisy = samples + (1e-5 * np.random.default_rng(digit).standard_normal(len(samples))).astype(np.float32)
            planted = Word(NAMES[digit], (len(samples) - len(word)) / RATE, len(samples) / RATE)
            recorder = recorder_for((noisy, [planted]))
            recorder.open(0)
            recorder.send(0, noisy, random.Random(0))
            recorder.finish(0)
            assert recorder.text() == planted.text


def test_silence_and_faint_noise_are_not_transcribed() -> None:
    noise = (0.01 * np.random.default_rng(0).standard_normal(20 * RATE)).astype(np.float32)
    recorder = recorder_for((noise, []))
    recorder.open(0)
    recorder.send(0, noise, random.Random(0))
    recorder.finish(0)
    assert recorder.lane.runner.seconds == 0.0  # type: ignore[attr-defined]
    assert not [answer for answer in recorder.answers if isinstance(answer, SpeechStarted)]


def test_markers_follow_the_tokens_before_them() -> None:
    samples, all_words = recording([*digits(4, 0.1, 0.3, 5, first=0.0), *digits(3, 0.1, 0.3, 6)])
    words, more, cut = all_words[:4], all_words[4:], round(all_words[3].end * RATE)
    recorder, chance = recorder_for((samples, all_words)), random.Random(0)
    recorder.open(0)
    for number, part in enumerate((samples[:cut], samples[cut:], samples[:0])):
        recorder.send(0, part, chance)
        recorder.finish(0, marker=number)
    recorder.finish(0)
    markers = [index for index, answer in enumerate(recorder.answers) if isinstance(answer, Marker)]
    assert [recorder.answers[index] for index in markers] == [Marker(0, 0), Marker(0, 1), Marker(0, 2)]
    before = LaneRecorder(recorder.lane, recorder.answers[: markers[0]])
    assert before.text() == " ".join(word.text for word in words)
    assert recorder.text() == " ".join(word.text for word in [*words, *more])


def test_partials_follow_the_speaker_within_their_bound() -> None:
    samples, words = recording(digits(40, 0.05, 0.3, 4))
    recorder = recorder_for((samples, words))
    recorder.open(0, latency_ms=160, endpointing=Endpointing(longest=None))
    recorder.send(0, samples, random.Random(0))
    partials = [answer for answer in recorder.answers if isinstance(answer, PartialTokens)]
    assert recorder.partial_seconds <= FACTOR * len(samples) / RATE + WINDOW
    assert recorder.partial_seconds > len(samples) / RATE
    for before, after in pairwise(partials):
        assert before.until < after.until <= before.until + WINDOW / FACTOR + 1.5
    for partial in partials:
        expected = [word.text for word in words if word.end < partial.until - 0.3 and word.end < 25.0]
        if partial.until < 25.0:
            assert text(partial.tokens, TOKENIZER).split()[: len(expected)] == expected


def test_no_partial_while_there_is_other_work() -> None:
    samples, words = recording(digits(10, 0.05, 0.2, 4))
    recorder = recorder_for((samples, words))
    recorder.open(0)
    recorder.open(1)
    recorder.lane.push(0, samples[: 3 * RATE], 0.0)
    recorder.answers += recorder.lane.run([0], 0.0)
    (partial,) = recorder.lane.ready_work()
    assert partial.is_optional
    recorder.lane.finalize(0, 1, 0.0)
    recorder.answers += recorder.lane.run([0], 0.0)
    (final,) = recorder.lane.ready_work()
    assert not final.is_optional
    while recorder.lane.ready_work():
        recorder.answers += recorder.lane.run([0], 0.0)
    assert not [answer for answer in recorder.answers if isinstance(answer, PartialTokens)]
    assert Marker(0, 1) in recorder.answers


def test_streams_share_batches_and_keep_their_own_words() -> None:
    recordings = [recording(digits(8, 0.1, 1.0, seed), seed=seed) for seed in range(4)]
    recorder, chance = recorder_for(*recordings), random.Random(1)
    for number in range(4):
        recorder.open(number, latency_ms=320)
    for at in range(0, max(len(samples) for samples, _ in recordings), 4_000):
        for number, (samples, _) in enumerate(recordings):
            recorder.lane.push(number, samples[at : at + 4_000], 0.0)
        if chance.random() < 0.7:
            recorder.step(chance, 0.0)
    for number in range(4):
        recorder.lane.finalize(number, None, 0.0)
    while recorder.step(chance, 0.0):
        pass
    for number, (_, words) in enumerate(recordings):
        assert recorder.text(number=number) == " ".join(word.text for word in words)


@pytest.fixture(scope="module")
def tiny() -> tuple[ClipRunner, Tokenizer]:
    runner, checkpoint = open_clip_runner("tiny", device="cpu")
    return runner, checkpoint.tokenizer


def test_the_tiny_model_transcribes_the_demo(tiny: tuple[ClipRunner, Tokenizer]) -> None:
    runner, tokenizer = tiny
    samples = soundfile.read(DATA / "demo.flac", dtype="float32")[0]
    expected = text([token.to_token() for token in transcribe_clips(runner, [samples])[0]], tokenizer)
    recorder = LaneRecorder(SegmentLane(runner, load_silero(), tokenizer, slots=1))
    recorder.open(0, latency_ms=1120, endpointing=Endpointing(silence=None))
    recorder.send(0, samples, random.Random(0))
    recorder.finish(0)
    assert recorder.text(tokenizer) == expected
    partials = [text(answer.tokens, tokenizer) for answer in recorder.answers if isinstance(answer, PartialTokens)]
    assert any(partial and expected.startswith(partial) for partial in partials)


def test_a_seam_in_real_speech_neither_loses_nor_repeats_words(tiny: tuple[ClipRunner, Tokenizer]) -> None:
    runner, tokenizer = tiny
    samples = soundfile.read(DATA / "demo.flac", dtype="float32")[0]
    expected = text([token.to_token() for token in transcribe_clips(runner, [samples])[0]], tokenizer)
    recorder = LaneRecorder(SegmentLane(runner, load_silero(), tokenizer, slots=1))
    recorder.open(0, endpointing=Endpointing(longest=2.5, silence=None))
    recorder.send(0, samples, random.Random(0))
    recorder.finish(0)
    assert "length" in {answer.reason for answer in recorder.answers if isinstance(answer, UtteranceEnded)}
    assert recorder.text(tokenizer) == expected


def test_a_stream_whose_utterance_does_not_fit_the_memory_fails() -> None:
    """The other stream, which shares its batches and begins with the same silence, is transcribed."""
    (long, _), (short, words) = (recording(digits(count, 0.05, 0.1, seed)) for count, seed in ((12, 5), (2, 6)))
    runner = ScarceRunner(KnowingRunner([(short, words), (long, [])]), 3.0)  # type: ignore[arg-type]
    recorder, chance = LaneRecorder(SegmentLane(runner, load_silero(), TOKENIZER, slots=2)), random.Random(0)
    for number, samples in enumerate((long, short)):
        recorder.open(number, latency_ms=2080, endpointing=Endpointing(silence=None, longest=None))
        recorder.lane.push(number, samples, 0.0)
        recorder.lane.finalize(number, None, 0.0)
    while recorder.step(chance, 0.0):
        pass
    (failed,) = [answer for answer in recorder.answers if isinstance(answer, Failed)]
    assert (failed.stream, failed.code) == (0, "out_of_memory")
    assert recorder.text(number=1) == " ".join(word.text for word in words)
    assert isinstance(recorder.answers[-1], Finished | Failed)
    assert len(recorder.lane) == 0
