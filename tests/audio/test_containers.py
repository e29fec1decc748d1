"""Sources that can be opened: files, bytes, pipes; and those that are never opened: URLs, protocols, devices."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from conure.audio.files import open_audio
from conure.errors import AudioNotFound, UnsupportedAudio
from tests.audio.recordings import encode, tone

SECOND = encode(tone(1.0))


class OneWay(io.RawIOBase):
    """A file object like a pipe: short reads, not seekable."""

    def __init__(self, content, fails_after=None):
        self.content, self.fails_after = io.BytesIO(content), fails_after

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.fails_after is not None and self.content.tell() >= self.fails_after:
            raise OSError(5, "Input/output error")
        part = self.content.read(min(len(buffer), 1_000))
        buffer[: len(part)] = part
        return len(part)


def seconds(source):
    with open_audio(source) as reader:
        return sum(block.shape[1] for block in reader.blocks()) / reader.rate


def test_paths_bytes_and_file_objects(tmp_path):
    path = tmp_path / "talk.wav"
    path.write_bytes(SECOND)
    assert seconds(path) == seconds(str(path)) == seconds(SECOND) == seconds(io.BytesIO(SECOND)) == 1.0


def test_a_file_object_is_read_from_its_start_and_stays_open(tmp_path):
    file = io.BytesIO()
    file.write(SECOND)
    assert seconds(file) == 1.0
    assert not file.closed


def test_a_file_is_closed_also_after_an_error(tmp_path):
    path = tmp_path / "talk.wav"
    path.write_bytes(SECOND[:20])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnsupportedAudio):
        seconds(path)
    path.write_bytes(SECOND)
    seconds(path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("container", "codec"), [("wav", "pcm_s16le"), ("mp3", "libmp3lame"), ("mp4", "aac"), ("caf", "pcm_s16le")]
)
def test_pipes(container, codec):
    content = encode(tone(1.0), container=container, codec=codec)
    assert seconds(OneWay(content)) == pytest.approx(seconds(content), abs=0.08)  # an MP3 cannot trim its end there


def test_a_named_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(SECOND,))
    writer.start()
    assert seconds(path) == 1.0
    writer.join()


@pytest.mark.parametrize("fails_after", [100, 16_000])
def test_audio_before_a_disk_error_is_read(fails_after, capfd):
    with open_audio(OneWay(SECOND, fails_after)) as reader:
        read = sum(block.shape[1] for block in reader.blocks())
    assert 0 < read < 16_000
    assert reader.problems[0].endswith("Input/output error")
    assert capfd.readouterr() == ("", "")


def test_a_disk_that_fails_at_once():
    with pytest.raises(AudioNotFound, match="cannot be read: Input/output error"):
        seconds(OneWay(SECOND, 0))


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("missing.wav", "No such file", "check the path"),
        ("", "is a folder", "name the files"),
        ("/dev/zero", "is a device", "record to a file"),
        ("talk\0.wav", "null", "check the path"),
        ("x" * 300, "too long", "check the path"),
    ],
)
def test_paths_that_cannot_be_opened(name, message, hint, tmp_path):
    with pytest.raises(AudioNotFound, match=message) as raised:
        seconds(tmp_path / name)
    assert hint in raised.value.hint
    assert "\n" not in raised.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "talk.wav"
    path.write_bytes(SECOND)
    path.chmod(0)
    with pytest.raises(AudioNotFound, match="Permission denied"):
        seconds(path)


@pytest.mark.parametrize("content", [b"", OneWay(b""), io.BytesIO()], ids=["bytes", "pipe", "file object"])
def test_empty(content):
    with pytest.raises(UnsupportedAudio, match="is empty"):
        seconds(content)


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:9/talk.wav",
        "file:{folder}/talk.wav",
        "concat:{folder}/talk.wav",
        "subfile,,start,0,end,0,,:{folder}/talk.wav",
        "data:audio/wav;base64,UklGRg==",
        "pipe:0",
    ],
)
def test_a_path_is_never_a_url(name, tmp_path):
    (tmp_path / "talk.wav").write_bytes(SECOND)
    with pytest.raises(AudioNotFound):
        seconds(name.format(folder=tmp_path))


def test_the_hint_for_a_url():
    with pytest.raises(AudioNotFound) as raised:
        seconds("https://example.org/talk.mp3")
    assert "download it first" in raised.value.hint


def test_a_file_may_have_the_name_of_a_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.wav", "pipe:0", "%03d.wav", "-"):
        Path(name).write_bytes(SECOND)
        assert seconds(name) == 1.0


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{talk}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="audio/wav"><Representation id="1" bandwidth="1"><BaseURL>{talk}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
POINTING = {
    "list.m3u8": HLS,
    "list.mp3": HLS,
    "late.m3u8": "\n" + HLS,
    "list.ffconcat": "ffconcat version 1.0\nfile {talk}\n",
    "list.mpd": DASH,
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "list.cue": 'FILE "{talk}" WAVE\n',
    "list.pls": "[playlist]\nFile1={talk}\n",
}


@pytest.mark.parametrize("name", POINTING)
def test_files_that_reference_others_are_refused(name, tmp_path):
    talk = tmp_path / "talk.wav"
    talk.write_bytes(SECOND)
    path = tmp_path / name
    path.write_text(POINTING[name].format(talk=talk))
    with pytest.raises(UnsupportedAudio, match=name):
        seconds(path)


NIST = """NIST_1A
   1024
channel_count -i 1
sample_rate -i 16000
sample_n_bytes -i 2
sample_byte_format -s2 01
sample_sig_bits -i 16
sample_count -i 1600
sample_coding -s{length} {coding}
end_head
"""


def sphere(coding, content):
    return NIST.format(length=len(coding), coding=coding).encode().ljust(1_024) + content


def test_nist_sphere():
    assert seconds(sphere("pcm", bytes(3_200))) == 0.1
    assert seconds(sphere("ulaw", bytes(1_600))) == 0.1


@pytest.mark.parametrize("coding", ["pcm,embedded-shorten-v2.00", "ulaw,embedded-shorten-v2.00"])
def test_broken_shorten_is_a_clear_error(coding):
    with pytest.raises(UnsupportedAudio, match="decode"):
        seconds(sphere(coding, b"ajkg" + b"\x02" * 3_200))
