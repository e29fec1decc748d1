"""The embedded live model on speech of unseen speakers, chunk by chunk at every latency."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conure.audio.files import open_audio
from conure.engine.backends.registry import OpenedModel, open_model
from conure.engine.lanes.stream_lane import StreamLane
from conure.engine.messages import Finished, StreamOptions, StreamTokens, UtteranceEnded
from conure.engine.plan import Plan
from conure.text.words import join_words, words_from_tokens
from conure.types import Token
from conure.vad.endpointing import Endpointing
from conure.vad.silero import load_silero
from tests.end_to_end.test_tiny import edits

DATA = Path(__file__).parents[1] / "data"
STRINGS: dict[str, str] = json.loads((DATA / "strings" / "texts.json").read_text())
MEASURED = {80: 0.261, 160: 0.266, 320: 0.261, 560: 0.253, 1120: 0.240}
"""Word error rates over the strings, as docs/performance.md has them."""
MARGIN = 0.02
DEFAULT = Endpointing()


@pytest.fixture(scope="module")
def opened() -> OpenedModel:
    return open_model("tiny-live", Plan(device="cpu"), live=True, clips=False)


def samples_of(path: Path) -> np.ndarray:
    with open_audio(path, rate=16_000) as reader:
        return np.concatenate([block[0] for block in reader.blocks()])


def heard(
    opened: OpenedModel, clips: list[np.ndarray], latency: int, endpointing: Endpointing = DEFAULT
) -> tuple[list[str], list[list[str]]]:
    """The text of each clip, all of them streamed at once; and why its utterances ended."""
    assert opened.stream_runner is not None
    tokenizer = opened.checkpoint.tokenizer
    lane = StreamLane(opened.stream_runner, load_silero(), len(clips), tokenizer)
    tokens: list[list[Token]] = [[] for _ in clips]
    reasons: list[list[str]] = [[] for _ in clips]
    for number, clip in enumerate(clips):
        assert lane.open(number, StreamOptions("tiny-live", latency, endpointing))
        lane.push(number, clip, 0.0)
        lane.finalize(number, None, 0.0)
    finished = 0
    while finished < len(clips):
        for answer in lane.run([work.stream for work in lane.ready()], 0.0):
            if isinstance(answer, StreamTokens):
                tokens[answer.stream] += answer.tokens
            elif isinstance(answer, UtteranceEnded):
                reasons[answer.stream].append(answer.reason)
            finished += isinstance(answer, Finished)
    return [join_words(words_from_tokens(found, tokenizer)) for found in tokens], reasons


@pytest.mark.parametrize("latency", MEASURED)
def test_error_rate_on_unseen_speakers(opened: OpenedModel, latency: int) -> None:
    texts, _ = heard(opened, [samples_of(DATA / "strings" / name) for name in STRINGS], latency)
    wrong = sum(edits(said.split(), text.split()) for said, text in zip(STRINGS.values(), texts, strict=True))
    assert wrong / sum(len(said.split()) for said in STRINGS.values()) <= MEASURED[latency] + MARGIN


def test_the_model_says_when_an_utterance_is_over(opened: OpenedModel) -> None:
    """Most strings are ended by the token, where no silence would end them."""
    silence = np.zeros(24_000, np.float32)
    clips = [np.concatenate([samples_of(DATA / "strings" / name), silence]) for name in STRINGS]
    _, reasons = heard(opened, clips, 160, Endpointing(silence=None))
    assert sum("end_token" in found for found in reasons) > 0.8 * len(clips)


def test_the_demo(opened: OpenedModel) -> None:
    for latency in MEASURED:
        assert heard(opened, [samples_of(DATA / "demo.flac")], latency)[0] == [
            "seven three nine zero one five eight two"
        ]
