"""Real speech and finals that are asked for: whatever is cut where, the words are those of a stream without cuts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from conure.decoding.emitted_token import STEP_SECONDS
from conure.engine.backends.registry import OpenedModel, open_model
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.messages import Answer, Finished, Marker, StreamOptions, StreamTokens
from conure.engine.plan import Plan
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token, Word
from conure.vad.silero import load_silero
from tests.engine.known_words import TOKENIZER, KnowingRunner
from tests.vad.digits import RATE, silences, spoken_apart

PACKET = 1280
LATENCIES = (80, 160, 320, 560, 1120)


@dataclass
class Talk:
    """One stream: its samples, where finals are asked for, and what was told before each of them."""

    samples: np.ndarray
    cuts: Sequence[int] = ()
    told: list[list[Token]] = field(default_factory=lambda: [[]])

    def packets(self) -> list[np.ndarray | int]:
        """Samples, and the places of cuts between them."""
        bounds = sorted({0, len(self.samples), *range(0, len(self.samples), PACKET), *self.cuts})
        found: list[np.ndarray | int] = []
        for begin, end in zip(bounds, [*bounds[1:], bounds[-1]], strict=True):
            found += [begin] * self.cuts.count(begin)  # type: ignore[attr-defined]
            found.append(self.samples[begin:end])
        return found

    def words(self, tokenizer: Tokenizer) -> list[Word]:
        return [word for tokens in self.told for word in words_from_tokens(tokens, tokenizer)]

    def texts(self, tokenizer: Tokenizer) -> list[str]:
        return [word.text for word in self.words(tokenizer)]


def hear(lane: StreamingLane, talks: Sequence[Talk], latency: int) -> None:
    """All of them side by side, packet by packet."""
    for number, _ in enumerate(talks):
        assert lane.open(number, StreamOptions("m", latency))
    waiting, finished = [talk.packets() for talk in talks], 0
    while finished < len(talks):
        for number, packets in enumerate(waiting):
            if not packets:
                continue
            packet = packets.pop(0)
            if isinstance(packet, int):
                lane.finalize(number, packet, 0.0)
            else:
                lane.push(number, packet, 0.0)
                if not packets:
                    lane.finalize(number, None, 0.0)
        while works := [work for work in lane.ready() if not work.is_optional]:
            kind = works[0].kind
            for answer in lane.run([work.stream for work in works if work.kind == kind], 0.0):
                finished += isinstance(answer, Finished)
                _take(talks[answer.stream], answer)


def _take(talk: Talk, answer: Answer) -> None:
    if isinstance(answer, StreamTokens):
        talk.told[-1] += answer.tokens
    elif isinstance(answer, Marker):
        assert answer.marker == sorted(talk.cuts)[len(talk.told) - 1]
        talk.told.append([])


def cuts_in(places: Sequence[tuple[int, int]], chance: random.Random) -> list[int]:
    """None, one or several in each, some of them at one sample, some at an edge of chunks."""
    found: list[int] = []
    for begin, end in places:
        some = [chance.randint(begin, end) for _ in range(chance.choice([0, 1, 1, 3]))]
        found += some * chance.choice([1, 1, 2])
        edge = -(-begin // 17_920) * 17_920
        found += [edge] * (edge <= end and chance.random() < 0.5)
    return sorted(found)


@pytest.fixture(scope="module")
def live() -> OpenedModel:
    return open_model("tiny-live", Plan(device="cpu"), live=True, clips=False)


def live_lane(live: OpenedModel, slots: int) -> StreamLane:
    assert live.stream_runner is not None
    return StreamLane(live.stream_runner, load_silero(), slots, live.checkpoint.tokenizer)


def check_order(talk: Talk, tokenizer: Tokenizer) -> None:
    """Words follow one another, and begin between the cuts where they were told; a step may reach over a cut."""
    times = [(word.start or 0.0, word.end or 0.0) for word in talk.words(tokenizer)]
    assert all(start <= end for start, end in times)
    assert times == sorted(times)
    for tokens, begin, end in zip(talk.told, [0, *talk.cuts], [*talk.cuts, len(talk.samples)], strict=True):
        assert all(begin / RATE - 0.001 <= token.start <= end / RATE + 0.001 for token in tokens)
        assert all(token.end <= end / RATE + STEP_SECONDS for token in tokens)


@pytest.mark.parametrize("latency", LATENCIES)
def test_cuts_in_silence_change_no_word(live: OpenedModel, latency: int) -> None:
    tokenizer, chance = live.checkpoint.tokenizer, random.Random(latency)
    for seed in (2, 8):
        samples, words = spoken_apart(seed)
        places = silences(words, samples)
        cuts = [[], *(cuts_in(places, chance) for _ in range(7))]
        before = [[end - ahead] for _, end in places[:-1] for ahead in (1, 1_000)]  # right before a word
        talks = [Talk(samples, some) for some in [*cuts, *before]]
        hear(live_lane(live, len(talks)), talks, latency)
        assert len(talks[0].texts(tokenizer)) == len(words)
        for talk in talks:
            assert talk.texts(tokenizer) == talks[0].texts(tokenizer), talk.cuts
            check_order(talk, tokenizer)


@pytest.mark.parametrize("latency", [80, 560, 1120])
def test_a_cut_within_a_word_loses_no_other(live: OpenedModel, latency: int) -> None:
    tokenizer = live.checkpoint.tokenizer
    samples, words = spoken_apart(4)
    places = [(at, word) for at, word in enumerate(words) if word.start is not None and word.end is not None]
    cut_words = [
        (at, round((word.start + (word.end - word.start) * part) * RATE))  # type: ignore[operator]
        for at, word in places
        for part in (0.3, 0.7)
    ]
    talks = [Talk(samples), *(Talk(samples, [cut]) for _, cut in cut_words)]
    hear(live_lane(live, len(talks)), talks, latency)
    expected = talks[0].texts(tokenizer)
    assert len(expected) == len(words)
    for talk, (at, _) in zip(talks[1:], cut_words, strict=True):
        heard = talk.texts(tokenizer)
        assert heard[:at] == expected[:at]
        assert heard[len(heard) - len(expected[at + 1 :]) :] == expected[at + 1 :]
        assert len(heard) <= len(expected) + 1
        check_order(talk, tokenizer)


@pytest.mark.parametrize("latency", [80, 560, 1120])
def test_cuts_anywhere_lose_no_token(live: OpenedModel, latency: int) -> None:
    """Whatever a flush makes of half a word, each token of the stream without cuts is told as often as there."""
    samples, _ = spoken_apart(0)
    chance = random.Random(latency)
    cuts = [sorted(chance.randrange(1, len(samples)) for _ in range(count)) for count in (1, 2, 5, 20) * 8]
    talks = [Talk(samples, some) for some in [[], *cuts]]
    hear(live_lane(live, len(talks)), talks, latency)
    expected, *found = (Counter(token.id for tokens in talk.told for token in tokens) for talk in talks)
    assert expected.total() >= 5
    for counts, some in zip(found, cuts, strict=True):
        assert counts >= expected, some


def knowing_lane(samples: np.ndarray, words: list[Word], slots: int) -> SegmentLane:
    return SegmentLane(KnowingRunner([(samples, words)]), load_silero(), TOKENIZER, slots)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_cuts_in_silence_change_no_word_of_utterances(seed: int) -> None:
    samples, words = spoken_apart(seed, 8, (0.25, 1.5))
    places, chance = silences(words, samples), random.Random(seed)
    before = [[end - ahead] for _, end in places[:-1] for ahead in (1, 500, 3_000)]
    talks = [Talk(samples, some) for some in [[], *(cuts_in(places, chance) for _ in range(10)), *before]]
    hear(knowing_lane(samples, words, len(talks)), talks, 1120)
    for talk in talks:
        assert talk.texts(TOKENIZER) == [word.text for word in words], talk.cuts
        check_order(talk, TOKENIZER)
