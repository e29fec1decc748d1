"""Real speech with finalizes: wherever they are, the words are those of a stream without finalizes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from conure.constants import ENCODER_FRAME_SECONDS
from conure.engine.backends.registry import OpenedModel, open_model
from conure.engine.lanes.lane import StreamingLane
from conure.engine.lanes.segment_lane import SegmentLane
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.messages import Finished, Marker, StreamEvent, StreamOptions, StreamTokens
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
class FinalizedStream:
    """One stream: its samples, its finalizes, and the tokens emitted before each of them."""

    samples: np.ndarray
    finalizes: Sequence[int] = ()
    emitted: list[list[Token]] = field(default_factory=lambda: [[]])

    def packets(self) -> list[np.ndarray | int]:
        """Samples, and the positions of finalizes between them."""
        bounds = sorted({0, len(self.samples), *range(0, len(self.samples), PACKET), *self.finalizes})
        found: list[np.ndarray | int] = []
        for begin, end in zip(bounds, [*bounds[1:], bounds[-1]], strict=True):
            found += [begin] * self.finalizes.count(begin)  # type: ignore[attr-defined]
            found.append(self.samples[begin:end])
        return found

    def words(self, tokenizer: Tokenizer) -> list[Word]:
        return [word for tokens in self.emitted for word in words_from_tokens(tokens, tokenizer)]

    def texts(self, tokenizer: Tokenizer) -> list[str]:
        return [word.text for word in self.words(tokenizer)]


def run_lane(lane: StreamingLane, streams: Sequence[FinalizedStream], latency: int) -> None:
    """Streams all of them concurrently, packet by packet."""
    for number, _ in enumerate(streams):
        assert lane.open(number, StreamOptions("m", latency))
    waiting, finished = [stream.packets() for stream in streams], 0
    while finished < len(streams):
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
        while works := [work for work in lane.ready_work() if not work.is_optional]:
            kind = works[0].kind
            for answer in lane.run([work.stream for work in works if work.kind == kind], 0.0):
                finished += isinstance(answer, Finished)
                _collect(streams[answer.stream], answer)


def _collect(stream: FinalizedStream, answer: StreamEvent) -> None:
    if isinstance(answer, StreamTokens):
        stream.emitted[-1] += answer.tokens
    elif isinstance(answer, Marker):
        assert answer.marker == sorted(stream.finalizes)[len(stream.emitted) - 1]
        stream.emitted.append([])


def finalizes_in(silent_spans: Sequence[tuple[int, int]], chance: random.Random) -> list[int]:
    """None, one or several in each, finalizes at the same sample, finalizes at a chunk boundary."""
    found: list[int] = []
    for begin, end in silent_spans:
        finalizes = [chance.randint(begin, end) for _ in range(chance.choice([0, 1, 1, 3]))]
        found += finalizes * chance.choice([1, 1, 2])
        edge = -(-begin // 17_920) * 17_920
        found += [edge] * (edge <= end and chance.random() < 0.5)
    return sorted(found)


@pytest.fixture(scope="module")
def live() -> OpenedModel:
    return open_model("tiny-live", Plan(device="cpu"), live=True, clips=False)


def live_lane(live: OpenedModel, slots: int) -> StreamLane:
    assert live.stream_runner is not None
    return StreamLane(live.stream_runner, load_silero(), slots, live.checkpoint.tokenizer)


def check_order(stream: FinalizedStream, tokenizer: Tokenizer) -> None:
    """Words are in order, and begin between the finalizes where they were emitted; a frame may reach over one."""
    times = [(word.start or 0.0, word.end or 0.0) for word in stream.words(tokenizer)]
    assert all(start <= end for start, end in times)
    assert times == sorted(times)
    for tokens, begin, end in zip(
        stream.emitted, [0, *stream.finalizes], [*stream.finalizes, len(stream.samples)], strict=True
    ):
        assert all(begin / RATE - 0.001 <= token.start <= end / RATE + 0.001 for token in tokens)
        assert all(token.end <= end / RATE + ENCODER_FRAME_SECONDS for token in tokens)


@pytest.mark.parametrize("latency", LATENCIES)
def test_finalizes_in_silence_change_no_word(live: OpenedModel, latency: int) -> None:
    tokenizer, chance = live.checkpoint.tokenizer, random.Random(latency)
    for seed in (2, 8):
        samples, words = spoken_apart(seed)
        silent_spans = silences(words, samples)
        finalize_lists = [[], *(finalizes_in(silent_spans, chance) for _ in range(7))]
        before = [[end - ahead] for _, end in silent_spans[:-1] for ahead in (1, 1_000)]  # right before a word
        streams = [FinalizedStream(samples, finalizes) for finalizes in [*finalize_lists, *before]]
        run_lane(live_lane(live, len(streams)), streams, latency)
        assert len(streams[0].texts(tokenizer)) == len(words)
        for stream in streams:
            assert stream.texts(tokenizer) == streams[0].texts(tokenizer), stream.finalizes
            check_order(stream, tokenizer)


@pytest.mark.parametrize("latency", [80, 560, 1120])
def test_a_finalize_within_a_word_loses_no_other_word(live: OpenedModel, latency: int) -> None:
    tokenizer = live.checkpoint.tokenizer
    samples, words = spoken_apart(4)
    silent_spans = [(at, word) for at, word in enumerate(words) if word.start is not None and word.end is not None]
    finalized_words = [
        (at, round((word.start + (word.end - word.start) * part) * RATE))  # type: ignore[operator]
        for at, word in silent_spans
        for part in (0.3, 0.7)
    ]
    streams = [FinalizedStream(samples), *(FinalizedStream(samples, [finalize]) for _, finalize in finalized_words)]
    run_lane(live_lane(live, len(streams)), streams, latency)
    expected = streams[0].texts(tokenizer)
    assert len(expected) == len(words)
    for stream, (at, _) in zip(streams[1:], finalized_words, strict=True):
        decoded = stream.texts(tokenizer)
        assert decoded[:at] == expected[:at]
        assert decoded[len(decoded) - len(expected[at + 1 :]) :] == expected[at + 1 :]
        assert len(decoded) <= len(expected) + 1
        check_order(stream, tokenizer)


@pytest.mark.parametrize("latency", [80, 560, 1120])
def test_finalizes_anywhere_lose_no_token(live: OpenedModel, latency: int) -> None:
    """Whatever a flush decodes of half a word, each token of the stream without finalizes is emitted as often."""
    samples, _ = spoken_apart(0)
    chance = random.Random(latency)
    finalize_lists = [sorted(chance.randrange(1, len(samples)) for _ in range(count)) for count in (1, 2, 5, 20) * 8]
    streams = [FinalizedStream(samples, finalizes) for finalizes in [[], *finalize_lists]]
    run_lane(live_lane(live, len(streams)), streams, latency)
    expected, *found = (Counter(token.id for tokens in stream.emitted for token in tokens) for stream in streams)
    assert expected.total() >= 5
    for counts, finalizes in zip(found, finalize_lists, strict=True):
        assert counts >= expected, finalizes


def knowing_lane(samples: np.ndarray, words: list[Word], slots: int) -> SegmentLane:
    return SegmentLane(KnowingRunner([(samples, words)]), load_silero(), TOKENIZER, slots)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_finalizes_in_silence_change_no_word_of_utterances(seed: int) -> None:
    samples, words = spoken_apart(seed, 8, (0.25, 1.5))
    silent_spans, chance = silences(words, samples), random.Random(seed)
    before = [[end - ahead] for _, end in silent_spans[:-1] for ahead in (1, 500, 3_000)]
    streams = [
        FinalizedStream(samples, finalizes)
        for finalizes in [[], *(finalizes_in(silent_spans, chance) for _ in range(10)), *before]
    ]
    run_lane(knowing_lane(samples, words, len(streams)), streams, 1120)
    for stream in streams:
        assert stream.texts(TOKENIZER) == [word.text for word in words], stream.finalizes
        check_order(stream, TOKENIZER)
