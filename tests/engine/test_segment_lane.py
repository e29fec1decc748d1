"""Live streams of a model that hears whole clips: every word is heard once, and guesses stay within their bound."""

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
    Answer,
    Failed,
    Finished,
    Marker,
    PartialTokens,
    SpeechStarted,
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
class Talk:
    """What was said to a lane, and what it answered."""

    lane: SegmentLane
    answers: list[Answer] = field(default_factory=list)
    guess_work: float = 0.0
    """Seconds of audio heard for guesses."""

    def open(self, number: int, **options: object) -> None:
        assert self.lane.open(number, StreamOptions("m", **options))  # type: ignore[arg-type]

    def turn(self, chance: random.Random, now: float) -> bool:
        works = self.lane.ready()
        if not works:
            return False
        firm = [work for work in works if not work.is_optional]
        chosen = chance.choice(firm or works)
        runner = self.lane.runner
        before = runner.seconds if isinstance(runner, KnowingRunner) else 0.0
        self.answers += self.lane.run([work.stream for work in works if work.kind == chosen.kind], now)
        if chosen.is_optional and isinstance(runner, KnowingRunner):
            self.guess_work += runner.seconds - before
        return True

    def say(self, number: int, samples: np.ndarray, chance: random.Random, packets: tuple[int, ...] = (1600,)) -> None:
        at = 0
        while at < len(samples):
            size = chance.choice(packets)
            self.lane.push(number, samples[at : at + size], at / RATE)
            at += size
            while self.turn(chance, at / RATE):
                pass

    def finish(self, number: int, marker: int | None = None) -> None:
        chance = random.Random(0)
        self.lane.finalize(number, marker, 0.0)
        while self.turn(chance, 0.0):
            pass

    def tokens(self, number: int = 0) -> list[Token]:
        return [t for a in self.answers if isinstance(a, StreamTokens) and a.stream == number for t in a.tokens]

    def text(self, tokenizer: Tokenizer = TOKENIZER, number: int = 0) -> str:
        return text(self.tokens(number), tokenizer)


def text(tokens: list[Token] | tuple[Token, ...], tokenizer: Tokenizer) -> str:
    return " ".join(word.text for word in words_from_tokens(tokens, tokenizer))


def knowing(*recordings: tuple[np.ndarray, list], slots: int = 4, jitter: float = 0.0) -> Talk:
    return Talk(SegmentLane(KnowingRunner(recordings, jitter), load_silero(), TOKENIZER, slots))  # type: ignore[arg-type]


def digits(count: int, low: float, high: float, seed: int, first: float | None = None) -> list[tuple[float, int, str]]:
    chance = random.Random(seed)
    speaker = chance.choice(SPEAKERS)
    parts = [(chance.uniform(low, high), chance.randrange(10), speaker) for _ in range(count)]
    return parts if first is None else [(first, *parts[0][1:]), *parts[1:]]


PAUSES = {"none": (0.0, 0.0), "short": (0.05, 0.5), "at the limit": (0.4, 0.9), "long": (1.0, 6.0)}


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_word_is_heard_once(pause: str, seed: int) -> None:
    """The first one at the first instant, the last one cut off by the end of the stream."""
    samples, words = recording(digits(30, *PAUSES[pause], seed, first=0.0), seed=seed)
    talk, chance = knowing((samples, words), jitter=0.05), random.Random(seed)
    talk.open(0, latency_ms=560, endpointing=Endpointing(longest=6.0))
    talk.say(0, samples, chance, (160, 1_000, 3_200, 20_000))
    talk.finish(0)
    assert talk.text() == " ".join(word.text for word in words)
    assert isinstance(talk.answers[-1], Finished)
    reasons = {answer.reason for answer in talk.answers if isinstance(answer, UtteranceEnded)}
    assert {"none": "length", "short": "length"}.get(pause, "silence") in reasons


def test_utterances_take_turns_and_own_what_was_heard() -> None:
    samples, words = recording(digits(25, 0.1, 1.5, 3))
    talk = knowing((samples, words))
    talk.open(0, endpointing=Endpointing(longest=5.0))
    talk.say(0, samples, random.Random(0))
    talk.finish(0)
    turns = [answer for answer in talk.answers if isinstance(answer, SpeechStarted | UtteranceEnded)]
    assert len(turns) >= 8
    assert all(isinstance(turn, (SpeechStarted, UtteranceEnded)[index % 2]) for index, turn in enumerate(turns))
    reached = 0.0
    for answer in talk.answers:
        if isinstance(answer, StreamTokens):
            assert answer.until >= reached
            assert all(token.end >= reached - 0.5 and token.start <= answer.until for token in answer.tokens)
            reached = answer.until


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_word_alone_is_heard_however_short_and_quiet(speaker: str) -> None:
    for digit in range(10):
        word = spoken(digit, speaker)
        for samples in (word, word * 0.05, np.concatenate([np.zeros(3 * RATE, np.float32), word * 0.3])):
            noisy = samples + (1e-5 * np.random.default_rng(digit).standard_normal(len(samples))).astype(np.float32)
            planted = Word(NAMES[digit], (len(samples) - len(word)) / RATE, len(samples) / RATE)
            talk = knowing((noisy, [planted]))
            talk.open(0)
            talk.say(0, noisy, random.Random(0))
            talk.finish(0)
            assert talk.text() == planted.text


def test_silence_and_faint_noise_are_not_transcribed() -> None:
    noise = (0.01 * np.random.default_rng(0).standard_normal(20 * RATE)).astype(np.float32)
    talk = knowing((noise, []))
    talk.open(0)
    talk.say(0, noise, random.Random(0))
    talk.finish(0)
    assert talk.lane.runner.seconds == 0.0  # type: ignore[attr-defined]
    assert not [answer for answer in talk.answers if isinstance(answer, SpeechStarted)]


def test_markers_follow_what_came_before_them() -> None:
    samples, all_words = recording([*digits(4, 0.1, 0.3, 5, first=0.0), *digits(3, 0.1, 0.3, 6)])
    words, more, cut = all_words[:4], all_words[4:], round(all_words[3].end * RATE)
    talk, chance = knowing((samples, all_words)), random.Random(0)
    talk.open(0)
    for number, part in enumerate((samples[:cut], samples[cut:], samples[:0])):
        talk.say(0, part, chance)
        talk.finish(0, marker=number)
    talk.finish(0)
    markers = [index for index, answer in enumerate(talk.answers) if isinstance(answer, Marker)]
    assert [talk.answers[index] for index in markers] == [Marker(0, 0), Marker(0, 1), Marker(0, 2)]
    before = Talk(talk.lane, talk.answers[: markers[0]])
    assert before.text() == " ".join(word.text for word in words)
    assert talk.text() == " ".join(word.text for word in [*words, *more])


def test_guesses_follow_the_speaker_within_their_bound() -> None:
    samples, words = recording(digits(40, 0.05, 0.3, 4))
    talk = knowing((samples, words))
    talk.open(0, latency_ms=160, endpointing=Endpointing(longest=None))
    talk.say(0, samples, random.Random(0))
    guesses = [answer for answer in talk.answers if isinstance(answer, PartialTokens)]
    assert talk.guess_work <= FACTOR * len(samples) / RATE + WINDOW
    assert talk.guess_work > len(samples) / RATE
    for before, after in pairwise(guesses):
        assert before.until < after.until <= before.until + WINDOW / FACTOR + 1.5
    for guess in guesses:
        said = [word.text for word in words if word.end < guess.until - 0.3 and word.end < 25.0]
        if guess.until < 25.0:
            assert text(guess.tokens, TOKENIZER).split()[: len(said)] == said


def test_no_guess_while_there_is_anything_else_to_do() -> None:
    samples, words = recording(digits(10, 0.05, 0.2, 4))
    talk = knowing((samples, words))
    talk.open(0)
    talk.open(1)
    talk.lane.push(0, samples[: 3 * RATE], 0.0)
    talk.answers += talk.lane.run([0], 0.0)
    (guess,) = talk.lane.ready()
    assert guess.is_optional
    talk.lane.finalize(0, 1, 0.0)
    talk.answers += talk.lane.run([0], 0.0)
    (final,) = talk.lane.ready()
    assert not final.is_optional
    while talk.lane.ready():
        talk.answers += talk.lane.run([0], 0.0)
    assert not [answer for answer in talk.answers if isinstance(answer, PartialTokens)]
    assert Marker(0, 1) in talk.answers


def test_streams_share_batches_and_hear_themselves_alone() -> None:
    told = [recording(digits(8, 0.1, 1.0, seed), seed=seed) for seed in range(4)]
    talk, chance = knowing(*told), random.Random(1)
    for number in range(4):
        talk.open(number, latency_ms=320)
    for at in range(0, max(len(samples) for samples, _ in told), 4_000):
        for number, (samples, _) in enumerate(told):
            talk.lane.push(number, samples[at : at + 4_000], 0.0)
        if chance.random() < 0.7:
            talk.turn(chance, 0.0)
    for number in range(4):
        talk.lane.finalize(number, None, 0.0)
    while talk.turn(chance, 0.0):
        pass
    for number, (_, words) in enumerate(told):
        assert talk.text(number=number) == " ".join(word.text for word in words)


@pytest.fixture(scope="module")
def tiny() -> tuple[ClipRunner, Tokenizer]:
    runner, checkpoint = open_clip_runner("tiny", device="cpu")
    return runner, checkpoint.tokenizer


def test_the_embedded_model_hears_the_demo(tiny: tuple[ClipRunner, Tokenizer]) -> None:
    runner, tokenizer = tiny
    samples = soundfile.read(DATA / "demo.flac", dtype="float32")[0]
    said = text([token.to_token() for token in transcribe_clips(runner, [samples])[0]], tokenizer)
    talk = Talk(SegmentLane(runner, load_silero(), tokenizer, slots=1))
    talk.open(0, latency_ms=1120, endpointing=Endpointing(silence=None))
    talk.say(0, samples, random.Random(0))
    talk.finish(0)
    assert talk.text(tokenizer) == said
    guesses = [text(answer.tokens, tokenizer) for answer in talk.answers if isinstance(answer, PartialTokens)]
    assert any(guess and said.startswith(guess) for guess in guesses)


def test_a_seam_in_real_speech_loses_and_doubles_nothing(tiny: tuple[ClipRunner, Tokenizer]) -> None:
    runner, tokenizer = tiny
    samples = soundfile.read(DATA / "demo.flac", dtype="float32")[0]
    said = text([token.to_token() for token in transcribe_clips(runner, [samples])[0]], tokenizer)
    talk = Talk(SegmentLane(runner, load_silero(), tokenizer, slots=1))
    talk.open(0, endpointing=Endpointing(longest=2.5, silence=None))
    talk.say(0, samples, random.Random(0))
    talk.finish(0)
    assert "length" in {answer.reason for answer in talk.answers if isinstance(answer, UtteranceEnded)}
    assert talk.text(tokenizer) == said


def test_a_stream_whose_utterance_does_not_fit_the_memory_ends_by_name() -> None:
    """The other one, which shares its batches and begins with the same silence, is heard."""
    (long, _), (short, words) = (recording(digits(count, 0.05, 0.1, seed)) for count, seed in ((12, 5), (2, 6)))
    runner = ScarceRunner(KnowingRunner([(short, words), (long, [])]), 3.0)  # type: ignore[arg-type]
    talk, chance = Talk(SegmentLane(runner, load_silero(), TOKENIZER, slots=2)), random.Random(0)
    for number, samples in enumerate((long, short)):
        talk.open(number, latency_ms=2080, endpointing=Endpointing(silence=None, longest=None))
        talk.lane.push(number, samples, 0.0)
        talk.lane.finalize(number, None, 0.0)
    while talk.turn(chance, 0.0):
        pass
    (failed,) = [answer for answer in talk.answers if isinstance(answer, Failed)]
    assert (failed.stream, failed.code) == (0, "out_of_memory")
    assert talk.text(number=1) == " ".join(word.text for word in words)
    assert isinstance(talk.answers[-1], Finished | Failed)
    assert len(talk.lane) == 0
