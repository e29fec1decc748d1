"""Real spoken digits across all kinds of overlaps: each is found once."""

import io
import random
import wave
from functools import cache

import numpy as np
import pytest

import conure
from conure.errors import ModelNotFound
from conure.service.segmented_recording import SegmentedRecording
from conure.vad.segmentation import SegmentationSettings, Segmenter
from conure.vad.silero import load_silero
from tests.vad.digits import NAMES, RATE, SPEAKERS, recording, spoken
from tests.vad.planted import KnowingRecogniser


def digits(count, pause, seed):
    """Of one speaker, with pauses between the two lengths."""
    chance = random.Random(seed)
    speaker = chance.choice(SPEAKERS)
    return [(chance.uniform(*pause), chance.randrange(10), speaker) for _ in range(count)]


def pauses(seed=0):
    """Lists for a whole clip, clear silence, a pause at the limit and no pause at all."""
    return {
        "a clip that fits": digits(8, (0.1, 1.0), seed),
        "clear silence": [part for _ in range(5) for part in digits(1, (3, 9), seed) + digits(5, (0.1, 0.6), seed)],
        "pauses at the limit": digits(70, (0.3, 0.9), seed),
        "no pause": digits(110, (0.0, 0.02), seed),
        "all of them": digits(110, (0.0, 0.0), seed) + digits(20, (0.2, 1.2), seed) + digits(8, (2.0, 7.0), seed),
    }


SEAMS = {
    "a clip that fits": {"edge"},
    "clear silence": {"edge", "silence"},
    "pauses at the limit": {"edge", "silence"},
    "no pause": {"edge", "forced"},
    "all of them": {"edge", "silence", "forced"},
}


class LocatingRecogniser:
    """Finds its clip in the whole recording, so that it knows which of the planted words are in it."""

    def __init__(self, samples, words):
        self.samples, self.knowing = samples, KnowingRecogniser(words)

    def __call__(self, clips):
        return [self.knowing.hear(self.place(clip) / RATE, len(clip) / RATE) for clip in clips]

    def place(self, clip):
        places = np.flatnonzero(self.samples[: len(self.samples) - len(clip) + 1] == clip[0])
        (place,) = [place for place in places if np.array_equal(self.samples[place : place + len(clip)], clip)]
        return int(place)


def seams(samples, settings):
    stream, cutter = load_silero().open_stream(), Segmenter(settings)
    pieces = cutter.push(samples, np.concatenate([stream.push(samples), stream.finish()])) + cutter.finish()
    return {seam for piece in pieces for seam in (piece.left_seam, piece.right_seam)}


@pytest.mark.parametrize("kind", SEAMS)
@pytest.mark.parametrize(("limit", "seed"), [(30.0, 1), (11.0, 2), (8.0, 3)])
def test_every_digit_is_found_once(kind, limit, seed):
    samples, words = recording([*pauses(seed)[kind]])
    samples = np.concatenate([samples, np.zeros(RATE, np.float32)])
    settings = SegmentationSettings(max_seconds=limit)
    audio = SegmentedRecording(LocatingRecogniser(samples, words), segmentation=settings)
    found = [word.text for _, word in audio.words([samples[None]])]
    assert found == [word.text for word in words]
    if len(samples) > 30 * RATE:
        assert SEAMS[kind] - {"edge"} <= seams(samples, settings)


def test_one_digit_in_a_silent_minute_is_found():
    for digit, speaker in [(digit, speaker) for digit in (0, 4, 8) for speaker in SPEAKERS]:
        samples, words = recording([(35.3, digit, speaker)])
        samples = np.concatenate([samples, np.zeros(30 * RATE, np.float32)])
        audio = SegmentedRecording(LocatingRecogniser(samples, words))
        assert [word.text for _, word in audio.words([samples[None]])] == [NAMES[digit]]


@cache
def tiny():
    """The model that comes with the package, with pieces so short that there are many seams."""
    try:
        recognizer = conure.load("tiny")
    except ModelNotFound as error:
        pytest.skip(error.message)
    recognizer.segment_seconds = 10.0
    return recognizer


def heard(samples):
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    transcript = tiny().transcribe(made.getvalue())
    return [word.text.strip(".,?!").lower() for word in transcript.words]


@cache
def understood():
    """Digits that the model knows when they are alone: what is tested here are the seams and not the model."""
    every = [(digit, speaker) for digit in range(10) for speaker in SPEAKERS]
    return [(digit, speaker) for digit, speaker in every if heard(spoken(digit, speaker)) == [NAMES[digit]]]


@pytest.mark.torch
@pytest.mark.parametrize(("kind", "most_errors"), [("clear silence", 0.05), ("pauses at the limit", 0.05)])
def test_the_tiny_model_finds_every_digit_once(kind, most_errors):
    """No seam may add to the errors that the model makes within a piece."""
    assert len(understood()) >= 15
    chance = random.Random(4)
    parts = [(max(pause, 0.2), *chance.choice(understood())) for pause, _, _ in pauses(4)[kind]]
    samples, words = recording(parts)
    found, planted = heard(samples), [word.text for word in words]
    assert errors(found, planted) <= most_errors * len(planted)


def errors(found, planted):
    """Words to change, put in or leave out."""
    row = list(range(len(planted) + 1))
    for i, word in enumerate(found, 1):
        row, before = [i], row
        for j, other in enumerate(planted, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != other)))
    return row[-1]
