"""Bulk transcription: each transcript equals that of a single call, and failures do not affect other recordings."""

import gc
import io
import os
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

import conure
from conure.errors import AudioNotFound, AudioTooLong, BadOption, EngineFailed, UnsupportedAudio, UnsupportedLanguage
from conure.service import bulk_transcription, decode_pool
from conure.service import decode_worker as reader
from conure.service.bulk_transcription import BulkTranscription
from conure.types import Word
from conure.vad.segmentation import SegmentationSettings
from tests.service.voices import STRINGS, save, speech

pytestmark = [pytest.mark.torch, pytest.mark.process]


@pytest.fixture(scope="module")
def tiny():
    """With short pieces and small batches, so that there are many of both."""
    recognizer = conure.load("tiny")
    recognizer.segment_seconds, recognizer.batch_seconds = 8.0, 30.0
    return recognizer


@pytest.fixture(autouse=True)
def nothing_is_left():
    threads = threading.active_count()
    yield
    gc.collect()
    assert reading_processes() == []
    assert threading.active_count() == threads
    if os.path.exists("/proc/self/maps"):
        assert "memfd:conure" not in Path("/proc/self/maps").read_text()


def reading_processes():
    children = psutil.Process().children(recursive=True)
    return [child for child in children if any("conure.service.decode_process" in part for part in child.cmdline())]


def told(transcript):
    """All of it; confidences but to what rounding in a batch leaves."""
    words = [(word.text, word.start, word.end, pytest.approx(word.confidence, abs=1e-4)) for word in transcript.words]
    return transcript.text, words, transcript.duration, transcript.channel, transcript.problems


@pytest.fixture(scope="module")
def long_ones(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    wav = save(folder / "a.wav", speech(95))
    flac = save(folder / "b.flac", speech(40, first=11), speech(40, first=23))
    mp3 = save(folder / "c.mp3", speech(61, first=5))
    return [wav, flac, mp3]


@pytest.mark.parametrize("workers", [1, 3])
def test_each_transcript_is_that_of_a_single_call(tiny, long_ones, workers):
    sources = [*STRINGS[:6], *long_ones, *STRINGS[6:12]]
    many = list(tiny.transcribe_many(iter(sources), workers=workers))
    alone = [tiny.transcribe(source) for source in sources]
    assert [told(one) for one in many] == [told(one) for one in alone]
    assert len({one.text for one in alone}) > 10


def test_channels_apart(tiny, long_ones):
    many = list(tiny.transcribe_channels_many([long_ones[1], STRINGS[0]]))
    alone = [tiny.transcribe_channels(source) for source in (long_ones[1], STRINGS[0])]
    assert [[told(one) for one in sides] for sides in many] == [[told(one) for one in sides] for sides in alone]
    assert [len(sides) for sides in many] == [2, 1]


def test_bytes_and_open_files_stand_beside_paths(tiny):
    with STRINGS[1].open("rb") as file:
        sources = [STRINGS[0].read_bytes(), STRINGS[0], file, str(STRINGS[1]), io.BytesIO(STRINGS[0].read_bytes())]
        texts = [one.text for one in tiny.transcribe_many(sources, workers=2)]
    first, second = (tiny.transcribe(path).text for path in STRINGS[:2])
    assert texts == [first, first, second, second, first]


def test_a_pipe_is_read_by_this_process(tiny, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(STRINGS[0].read_bytes(),))
    writer.start()
    texts = [one.text for one in tiny.transcribe_many([pipe, STRINGS[0]])]
    writer.join()
    assert texts == [tiny.transcribe(STRINGS[0]).text] * 2


def test_no_recordings_no_transcripts(tiny):
    assert list(tiny.transcribe_many([])) == []


def test_silence_is_an_empty_transcript(tiny, tmp_path):
    path = save(tmp_path / "silence.wav", np.zeros(100_000, np.float32))
    silence, said = tiny.transcribe_many([path, STRINGS[0]])
    assert (silence.text, silence.duration) == ("", 6.25)
    assert said.text


def test_a_bad_file_fails_alone(tiny, tmp_path, long_ones):
    bad, cut = tmp_path / "bad.mp3", tmp_path / "cut.wav"
    bad.write_bytes(b"nothing that plays")
    cut.write_bytes(long_ones[0].read_bytes()[: 20 * 32_000])
    sources = [STRINGS[0], bad, tmp_path / "gone.wav", cut, long_ones[0], STRINGS[1]]
    good, broken, gone, short, long, last = tiny.transcribe_many(sources, max_seconds=60, workers=2)
    assert isinstance(broken, UnsupportedAudio)
    assert str(bad) in broken.message
    assert broken.hint
    assert isinstance(gone, AudioNotFound)
    assert isinstance(long, AudioTooLong)
    alone = [tiny.transcribe(path) for path in (STRINGS[0], cut, STRINGS[1])]
    assert [told(one) for one in (good, short, last)] == [told(one) for one in alone]
    assert "cut off" in short.problems[0]


def test_errors_of_the_call_are_raised(tiny):
    with pytest.raises(BadOption, match="maximal clip length of 1 s"):
        list(BulkTranscription(STRINGS, len, len, segmentation=SegmentationSettings(max_seconds=1), batch_seconds=30))
    recognizer = conure.load("tiny")
    recognizer.checkpoint = conure.load(Path(__file__).parents[1] / "data/parity/nemotron_prompt.nemo").checkpoint
    with pytest.raises(UnsupportedLanguage, match="'tlh'"):
        recognizer.transcribe_many(STRINGS, language="tlh")


def test_a_killed_worker_fails_only_its_current_recording(tiny, tmp_path):
    """It has no room for the long one, so it is at it when the first words come."""
    long = save(tmp_path / "long.wav", np.tile(speech(100), 5))
    sources = [STRINGS[0], long, *STRINGS[1:4]]
    killed = []

    def kill_once(done, total):
        if done > 20 and not killed:
            (process,) = reading_processes()
            process.kill()
            killed.append(process.pid)

    first, lost, *others = tiny.transcribe_many(sources, workers=1, progress=kill_once)
    assert killed
    assert isinstance(lost, EngineFailed)
    assert lost.message == f"{long}: its decode worker process died: killed by SIGKILL"
    expected = [told(tiny.transcribe(path)) for path in (STRINGS[0], *STRINGS[1:4])]
    assert [told(one) for one in (first, *others)] == expected


def test_processes_that_never_come_up_are_an_error_of_the_call(tiny, monkeypatch):
    monkeypatch.setattr(reader, "COMMAND", "raise SystemExit(3)")
    with pytest.raises(EngineFailed, match="do not start: exit code 3"):
        list(tiny.transcribe_many(STRINGS[:20], workers=2))


def test_it_can_be_left_early(tiny, long_ones):
    with closing(tiny.transcribe_many([STRINGS[0], *long_ones, *STRINGS], workers=2)) as transcripts:
        assert next(transcripts).text == tiny.transcribe(STRINGS[0]).text
        assert reading_processes()
    assert reading_processes() == []


def test_progress_rises_to_the_end(tiny, long_ones):
    seen = []
    transcripts = list(tiny.transcribe_many(long_ones, workers=2, progress=lambda *told: seen.append(told)))
    done = [seconds for seconds, _ in seen]
    assert done == sorted(done)
    assert len(done) > 5
    assert seen[-1] == (pytest.approx(sum(one.duration for one in transcripts), abs=0.01),) * 2


def archive(sources, transcribe, **options):
    """A network that pretends: its tokens are what `transcribe` gives."""
    options = {"segmentation": SegmentationSettings(max_seconds=8), "batch_seconds": 30.0, **options}
    with closing(BulkTranscription(sources, transcribe, lambda tokens, _: tokens, **options).results()) as results:
        yield from results


def test_a_clip_that_fails_on_the_device_fails_its_recording(tmp_path):
    loud = save(tmp_path / "loud.wav", 0.99 * speech(20) / np.abs(speech(20)).max())
    sizes = []

    def transcribe(clips):
        sizes.append(len(clips))
        if any(np.abs(clip).max() > 0.95 for clip in clips):
            raise ZeroDivisionError("the device broke")
        return [[Word("said", 0.1, 0.2)] for _ in clips]

    soft = save(tmp_path / "soft.wav", 0.1 * speech(20))
    first, broken, last = archive([soft, loud, soft], transcribe, workers=1)
    assert isinstance(broken.error, ZeroDivisionError)
    assert broken.words == []
    assert first.by_channel() == last.by_channel()
    assert first.by_channel()[0]
    assert max(sizes) > 1


def test_batches_have_clips_of_several_recordings_and_are_bounded():
    batches = []

    def transcribe(clips):
        batches.append([len(clip) / 16_000 for clip in clips])
        return [[] for _ in clips]

    assert len(list(archive(STRINGS, transcribe, workers=1))) == len(STRINGS)
    assert sum(map(len, batches)) >= len(STRINGS)
    assert all(max(batch) * len(batch) <= 30 for batch in batches)
    assert max(map(len, batches)) > 3


def test_recordings_wait_for_the_first_one_in_bounded_number(monkeypatch, tmp_path):
    """The first one is long; sources are asked for no further than that."""
    monkeypatch.setattr(bulk_transcription, "MAX_OPEN_RECORDINGS", 4)
    asked, given = [], []

    def sources():
        for path in [save(tmp_path / "long.flac", speech(60)), *STRINGS[:12]]:
            asked.append(path)
            assert len(asked) - len(given) <= 5 + 1
            yield path

    for recording in archive(sources(), lambda clips: [[] for _ in clips], workers=3):
        given.append(recording.name)
    assert given == [str(path) for path in asked]


def test_errors_of_the_source_iterator_are_raised():
    def sources():
        yield STRINGS[0]
        raise OSError("the list is gone")

    with pytest.raises(OSError, match="the list is gone"):
        list(archive(sources(), lambda clips: [[] for _ in clips]))


def test_a_worker_that_dies_returns_unstarted_tasks(monkeypatch, tmp_path):
    """Nothing but the recording in the middle is lost, though the reader had been asked for the next one already."""
    monkeypatch.setattr(decode_pool, "TASKS_PER_WORKER", 3)
    long = save(tmp_path / "long.wav", np.tile(speech(100), 5))
    done = threading.Event()

    def transcribe(clips):
        if not done.is_set():
            done.set()
            reading_processes()[0].kill()
        return [[] for _ in clips]

    results = list(archive([long, *STRINGS[:4]], transcribe, workers=1))
    assert [type(one.error) for one in results] == [EngineFailed, *[type(None)] * 4]
