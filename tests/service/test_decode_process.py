"""Decode workers: the same clips as in this process, in bounded memory, without torch."""

import os
import subprocess
import sys

import numpy as np
import pytest

from conure.audio.files import open_audio
from conure.service.decode_process import (
    DecodedClip,
    RecordingEnded,
    RecordingFailed,
    RecordingOpened,
    WorkerBlocked,
    WorkerReady,
)
from conure.service.decode_worker import DecodeTask, start_process, start_thread
from conure.service.segmenter import split_blocks
from conure.vad.segmentation import SegmentationSettings
from tests.service.voices import RATE, STRINGS, save, speech
from tests.waiting import PATIENCE

CUT = SegmentationSettings(max_seconds=8)
ROOM = 20 * RATE


@pytest.fixture(params=[start_process, start_thread])
def reader(request):
    reader = request.param(CUT, ROOM)
    yield reader
    reader.stop()


def read(reader, task):
    """What is said of a recording, and the samples of its pieces; pieces are freed when the reader waits for room."""
    said, pieces, held = [], [], []
    reader.submit(task)
    while not any(isinstance(one, RecordingEnded | RecordingFailed) for one in said):
        answers = reader.receive()
        assert answers is not None
        for answer in answers:
            if isinstance(answer, DecodedClip):
                held.append(answer)
                assert sum(piece.count for piece in held) <= ROOM
                pieces.append(reader.samples[answer.offset : answer.offset + answer.count].copy())
            if isinstance(answer, WorkerBlocked):
                reader.free_clips([piece.offset for piece in held])
                held.clear()
        said += answers
    reader.free_clips([piece.offset for piece in held])
    reader.finish_task()
    return [one for one in said if not isinstance(one, WorkerReady)], pieces


def cut_here(path, channels):
    with open_audio(path, channels=channels) as source:
        found = [piece for _, pieces in split_blocks(source.blocks(), CUT) for piece in pieces]
    return [(channel, piece.start, piece.overlap) for channel, piece in found], [piece.samples for _, piece in found]


@pytest.mark.parametrize("channels", ["mix", "split"])
def test_clips_are_the_same_as_in_this_process(reader, tmp_path, channels):
    path = save(tmp_path / "long.flac", speech(70), speech(70, first=9))
    said, pieces = read(reader, DecodeTask(3, path, channels == "split", None))
    places, expected = cut_here(path, channels)
    assert [(one.channel, one.start, one.overlap) for one in said if isinstance(one, DecodedClip)] == places
    assert len(pieces) == len(expected)
    assert all(np.array_equal(piece, other) for piece, other in zip(pieces, expected, strict=True))
    assert any(isinstance(one, WorkerBlocked) for one in said)
    assert said[0] == RecordingOpened(3, 1 + (channels == "split"), pytest.approx(70.0))
    assert said[-1] == RecordingEnded(3, str(path), pytest.approx(70.0), [])


def test_after_a_failure_the_next_recording_is_decoded(reader, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"no sound")
    (failed,), _ = read(reader, DecodeTask(0, bad, False, None))
    assert failed == RecordingFailed(
        0, "UnsupportedAudio", f"{bad}: is not audio, or damaged from its start", failed.hint
    )
    assert failed.hint.startswith("check that it plays")
    said, _ = read(reader, DecodeTask(1, STRINGS[0], False, 1.0))
    assert (said[-1].kind, said[-1].number) == ("AudioTooLong", 1)
    said, (piece,) = read(reader, DecodeTask(2, STRINGS[0], False, None))
    assert said[-1].seconds == pytest.approx(len(piece) / RATE)


def test_open_files_are_decoded_on_a_thread(tmp_path):
    reader = start_thread(CUT, ROOM)
    try:
        _, (piece,) = read(reader, DecodeTask(0, STRINGS[0].read_bytes(), False, None))
        with STRINGS[0].open("rb") as file:
            _, (same,) = read(reader, DecodeTask(1, file, False, None))
    finally:
        reader.stop()
    assert np.array_equal(piece, same)
    assert reader.files == {}


def test_process_local_paths_are_decoded_on_a_thread(tmp_path):
    assert DecodeTask(0, STRINGS[0], False, None).is_on_disk
    assert DecodeTask(0, str(STRINGS[0]), False, None).is_on_disk
    for source in (b"", tmp_path, tmp_path / "gone.wav", "/dev/stdin", "/proc/self/exe"):
        assert not DecodeTask(0, source, False, None).is_on_disk


def test_a_worker_ends_when_its_connection_is_closed(tmp_path):
    """In the middle of a recording, too."""
    path = save(tmp_path / "long.wav", speech(70))
    for tasks in ([], [DecodeTask(0, path, False, None)]):
        reader = start_process(CUT, ROOM)
        for task in tasks:
            reader.submit(task)
            while not any(isinstance(answer, WorkerBlocked) for answer in reader.receive()):
                pass
        reader.connection.close()
        assert reader.process.wait(60) == 0


def test_worker_processes_load_no_torch_and_one_detector():
    """Each would take 300 MB and seconds; ONNX Runtime, where the kernel hears speech, 45 MB and 0.4 s."""
    code = """if True:
        import sys
        from conure.service.decode_process import main
        from conure.vad.silero import load_silero
        load_silero()
        from conure.native.library import has_native_kernels
        loads_onnx = "onnxruntime" in sys.modules
        print("torch" in sys.modules, "conure.cli" in sys.modules, has_native_kernels() != loads_onnx)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "False False True\n", done.stderr


def test_a_name_that_is_not_utf8(reader, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.flac")
    save(tmp_path / "plain.flac", speech(2)).rename(path)
    said, pieces = read(reader, DecodeTask(1, path, False, None))
    assert pieces
    assert said[-1].name.endswith("caf\\xe9.flac")
    said, _ = read(reader, DecodeTask(2, tmp_path / os.fsdecode(b"gone\xe9.flac"), False, None))
    assert said[-1].message.endswith("gone\\xe9.flac: No such file or directory")
