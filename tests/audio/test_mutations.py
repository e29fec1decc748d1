"""Small recordings with wrong sizes, counts and time stamps: read as far as possible, or refused with one line."""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import pytest

from conure.audio.files import open_audio
from conure.audio.formats import AudioFormat
from conure.audio.live_decoder import LiveDecoder
from conure.errors import ConureError
from tests.audio.recordings import encode, film, tone
from tests.audio.test_containers import OneWay
from tests.audio.test_tracks import mixed
from tests.audio.test_truncation import ANNOUNCING, SILENT

MAX_SECONDS = 3_600.0
NUMBERS = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\0\0\x80", b"\xff" * 8]


def small(kind):
    container, codec, rate, options = (ANNOUNCING | SILENT)[kind]
    noise = np.random.default_rng(0).normal(0, 0.1, (1, rate)).astype(np.float32)
    return encode(noise, rate, container, codec, **options)


BASES = {kind: small(kind) for kind in ANNOUNCING | SILENT}
BASES |= {"film": film(tone(1.0)), "film of mp4": film(tone(1.0), container="mp4")}
BASES |= {"two tracks": mixed(np.zeros((1, 16_000), np.float32), tone(1.0))}


def mutated(recording, rng):
    made = bytearray(recording)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(min(len(made), 600) if rng.random() < 0.6 else len(made))
        match rng.randrange(5):
            case 0 | 1:
                number = rng.choice(NUMBERS)
                made[place : place + len(number)] = number
            case 2:
                made[place] ^= 1 << rng.randrange(8)
            case 3:
                del made[place : place + rng.randrange(1, 200)]
            case 4:
                made += made[: rng.randrange(1, len(made))]
        made = made or bytearray(b"x")
    return bytes(made)


def filed(recording):
    with open_audio(recording, max_seconds=MAX_SECONDS) as reader:
        return sum(block.shape[1] for block in reader.blocks())


def piped(recording):
    return filed(OneWay(recording))


def live(recording):
    with LiveDecoder(AudioFormat("container")) as decoder:
        count = sum(len(decoder.push(recording[at : at + 4_001])) for at in range(0, len(recording), 4_001))
        return count + len(decoder.finish())


@pytest.mark.parametrize("kind", BASES)
def test_results_are_samples_or_known_errors(kind, capfd):
    rng = random.Random(kind)
    for way in (filed,) * 8 + (piped, live) * 3:
        with suppress(ConureError):
            assert way(mutated(BASES[kind], rng)) <= MAX_SECONDS * 16_000
    assert capfd.readouterr() == ("", "")
