"""Damaged recordings are read completely, or the loss is reported; for intact ones nothing is reported."""

from __future__ import annotations

import io
import random
import struct

import pytest

from conure.audio.container_checks import CONTAINER_CHECKS
from conure.audio.files import open_audio
from conure.audio.frame_checks import FRAME_CHECKS
from conure.audio.mp4_boxes import BoxCheck
from tests.audio.recordings import film, tone
from tests.audio.test_containers import OneWay
from tests.audio.test_truncation import ANNOUNCING, FRAGMENTED, SECONDS, SILENT, encode, read_problems
from tests.audio.test_truncation import recording_of as recording_of_kind

TOLERATED = 0.13
"""Seconds of sound that may be lost without a word: gaps within the jitter of time stamps."""
OTHERS = {
    "avi of mp3": ("avi", "libmp3lame", 44_100, {}),
    "avi of aac": ("avi", "aac", 44_100, {}),
    "flv of mp3": ("flv", "libmp3lame", 44_100, {}),
    "mpeg of ac3": ("mpeg", "ac3", 48_000, {}),
    "vob": ("vob", "ac3", 48_000, {}),
    "mpeg-ts of ac3": ("mpegts", "ac3", 48_000, {}),
    "mpeg-ts of opus": ("mpegts", "libopus", 48_000, {}),
    "nut of opus": ("nut", "libopus", 48_000, {}),
    "nut of flac": ("nut", "flac", 16_000, {}),
    "mka of aac": ("matroska", "aac", 16_000, {}),
    "mka as it is made": ("matroska", "pcm_s16le", 16_000, {"live": "1"}),
    "swf at 22 kHz": ("swf", "libmp3lame", 22_050, {}),
    "mov in fragments": ("mov", "pcm_s16le", 16_000, FRAGMENTED),
    "mxf": ("mxf_opatom", "pcm_s16le", 48_000, {}),
    "gxf": ("gxf", "pcm_s16le", 48_000, {}),
    "wtv": ("wtv", "mp2", 48_000, {}),
    "eac3": ("eac3", "eac3", 48_000, {}),
}
KINDS = ANNOUNCING | SILENT | OTHERS


def recording_of(kind):
    if kind not in OTHERS:
        return recording_of_kind(kind)
    container, codec, rate, options = OTHERS[kind]
    return encode(tone(SECONDS, rate), rate, container, codec, **options)


def damaged(recording, at, way, rng):
    changed = bytearray(recording)
    size = {"bit": 1, "number": 4, "hole": 512, "noise": 3_000}[way]
    size = min(size, len(changed) - at)
    if way == "bit":
        changed[at] ^= 1 << rng.randrange(8)
    else:
        changed[at : at + size] = {"number": b"\xff" * size, "hole": bytes(size), "noise": rng.randbytes(size)}[way]
    return bytes(changed)


@pytest.mark.parametrize("kind", OTHERS)
def test_intact_recordings_have_no_problems(kind):
    recording = recording_of(kind)
    seconds, problems = read_problems(recording)
    assert seconds >= SECONDS - 0.01
    assert problems == []
    if kind == "wtv":
        return  # it cannot be read from a pipe
    with open_audio(OneWay(recording)) as reader:
        for _ in reader.blocks():
            pass
        assert reader.problems == []


@pytest.mark.parametrize("container", ["matroska", "avi", "nut", "mpegts", "mov", "mp4"])
def test_intact_films_have_no_problems(container):
    assert read_problems(film(tone(3.0, 48_000), container=container, rate=48_000))[1] == []


@pytest.mark.parametrize("kind", KINDS)
def test_lost_audio_is_reported(kind):
    recording = recording_of(kind)
    whole, _ = read_problems(recording)
    rng = random.Random(kind)
    for way in ("bit", "number", "hole", "noise"):
        for _ in range(10):
            at = rng.randrange(len(recording))
            seconds, problems = read_problems(damaged(recording, at, way, rng))
            assert problems or seconds > whole - TOLERATED, (way, at, seconds)


@pytest.mark.parametrize("kind", ["swf", "nut of opus", "webm of a browser"])
def test_damage_at_any_position_is_reported(kind):
    recording = recording_of(kind)
    whole, _ = read_problems(recording)
    rng = random.Random(kind)
    for way in ("number", "hole"):
        for at in range(rng.randrange(500), len(recording), 500):
            seconds, problems = read_problems(damaged(recording, at, way, rng))
            assert problems or seconds > whole - TOLERATED, (way, at, seconds)


def check_of(recording):
    checks = (*CONTAINER_CHECKS, *FRAME_CHECKS)
    return next((check() for begin, check in checks if begin.match(recording)), None)


CHECKED = [kind for kind in KINDS if check_of(recording_of(kind))]


def walked(check, recording, step):
    for at in range(0, len(recording), step):
        check.push(recording[at : at + step])
    check.finish(len(recording), is_cut=False)
    return check.damaged_at


@pytest.mark.parametrize("kind", CHECKED)
def test_the_check_does_not_depend_on_the_sizes_of_pieces(kind):
    recording = recording_of(kind)
    cut = recording[: len(recording) // 2] + bytes(300) + recording[len(recording) // 2 + 300 :]
    places = {walked(check_of(cut), cut, step) for step in (7, 1_001, 1 << 20)}
    assert len(places) == 1
    assert all(walked(check_of(recording), recording, step) is None for step in (7, 1_001, 1 << 20))


@pytest.mark.parametrize("kind", ["adts", "ac3", "mp2", "mp3 of frames alone", "latm", "amr"])
def test_junk_between_frames_is_reported(kind):
    recording = recording_of_kind(kind)
    check = check_of(recording)
    check.push(recording[:2_000])
    frame = check._last_at
    _, problems = read_problems(recording[:frame] + b"\x91\x17\x55" * 100 + recording[frame:])
    assert f"damaged at byte {frame}: parts of it may be left out" in problems


def test_tags_around_frames_are_not_damage():
    frames = recording_of_kind("adts")
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
    last = b"TAG" + b"a song".ljust(125, b"\0")
    assert read_problems(tag + frames + tag + frames + last)[1] == []


def test_zero_bytes_at_the_end_are_not_damage():
    for kind in ("adts", "flv", "mpeg", "swf", "webm of a browser"):
        assert read_problems(recording_of_kind(kind) + bytes(1_000))[1] == [], kind


@pytest.mark.parametrize("number", [0, 5, 0x85, 0xFF])
def test_a_block_of_an_unknown_track_is_reported(number):
    recording = bytearray(recording_of_kind("webm of a browser"))
    at = recording.rfind(b"\xa3", 0, len(recording) - 2_000)
    while recording[at + 3] != 0x81:  # a block: name, length, track
        at = recording.rfind(b"\xa3", 0, at)
    recording[at + 3] = number
    assert f"damaged at byte {at}: parts of it may be left out" in read_problems(bytes(recording))[1]


def test_truncated_dsf_and_dsdiff_are_reported():
    bits = random.Random(0).randbytes(4_096 * 100)
    size = 28 + 52 + 12 + len(bits)
    dsf = b"DSD " + struct.pack("<QQQ", 28, size, 0)
    dsf += b"fmt " + struct.pack("<QIIIIIIQII", 52, 1, 0, 1, 1, 2_822_400, 1, 8 * len(bits), 4_096, 0)
    dsf += b"data" + struct.pack("<Q", 12 + len(bits)) + bits
    parts = ((b"FS  ", struct.pack(">I", 2_822_400)), (b"CHNL", b"\0\1C000"), (b"CMPR", b"DSD \x0enot compressed\0"))
    properties = b"SND " + b"".join(name + struct.pack(">Q", len(part)) + part for name, part in parts)
    chunks = ((b"FVER", b"\1\5\0\0"), (b"PROP", properties), (b"DSD ", bits))
    content = b"DSD " + b"".join(name + struct.pack(">Q", len(part)) + part for name, part in chunks)
    dsdiff = b"FRM8" + struct.pack(">Q", len(content)) + content
    for recording in (dsf, dsdiff):
        seconds, problems = read_problems(recording)
        assert seconds > 1.1
        assert problems == []
        for part in (0.3, 0.6, 0.9):
            assert "cut off" in read_problems(recording[: round(part * len(recording))])[1][-1]


def test_fragments_of_live_mp4_are_checked():
    recording = recording_of_kind("fragmented mp4")
    assert walked(BoxCheck(), recording, 999) is None
    at = recording.index(b"mdat") - 4
    for size in (0, 9, 1_000):
        assert walked(BoxCheck(), recording[:at] + size.to_bytes(4) + recording[at + 4 :], 999) is not None
    with open_audio(OneWay(recording)) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) / reader.rate >= SECONDS
        assert reader.problems == []


def test_a_file_that_is_read_out_of_order_is_checked_in_order():
    recording = bytearray(recording_of_kind("ogg flac"))
    pages = [at for at in range(len(recording)) if recording.startswith(b"OggS", at)]
    recording[pages[3] + 100] ^= 1
    with open_audio(io.BytesIO(bytes(recording))) as reader:
        for _ in reader.blocks():
            pass
        assert f"the page at byte {pages[3]} is damaged or missing, and left out" in reader.problems
