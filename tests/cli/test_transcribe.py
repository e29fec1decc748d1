"""`conure transcribe` with a fake recognizer."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from conure.cli import transcribe as command
from conure.cli.main import main
from conure.types import Segment, Transcript, Word
from tests.cli.conftest import Call, FakeRecognizer

Touch = Callable[..., None]


def test_text_goes_to_stdout_and_nothing_else(call: Call, touch: Touch, recognizers: list[FakeRecognizer]) -> None:
    touch("talk.mp3")
    done = call("transcribe", "talk.mp3")
    assert (done.code, done.out, done.err) == (0, "Hello there.\n", "")
    assert recognizers[0].calls == [
        ("talk.mp3", {"language": None, "track": None, "max_seconds": 12 * 3600.0, "progress": None}),
    ]


def test_options_reach_the_recognizer(call: Call, touch: Touch, recognizers: list[FakeRecognizer]) -> None:
    touch("a.wav")
    line = "transcribe a.wav --model tiny --device cuda:1 --runner torch --language de --track 2 --max-hours 0.5"
    assert call(*line.split()).code == 0
    settings = recognizers[0].settings
    assert (settings.model, settings.device, settings.runner) == ("tiny", "cuda:1", "torch")
    assert recognizers[0].calls[0][1] == {"language": "de", "track": 2, "max_seconds": 1800.0, "progress": None}


def test_settings_of_the_environment(
    call: Call, touch: Touch, recognizers: list[FakeRecognizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    touch("a.wav")
    monkeypatch.setenv("CONURE_MODEL", "tiny")
    assert call("transcribe", "a.wav").code == 0
    assert recognizers[0].settings.model == "tiny"


def test_several_recordings_one_model(call: Call, touch: Touch, recognizers: list[FakeRecognizer]) -> None:
    touch("a.mp3", "b.mp3")
    done = call("transcribe", "a.mp3", "b.mp3", "./a.mp3")
    assert done.out == "==> a.mp3 <==\nHello there.\n==> b.mp3 <==\nHello there.\n"
    assert len(recognizers) == 1


def test_json(call: Call, touch: Touch) -> None:
    touch("a.mp3", "b.mp3")
    assert json.loads(call("transcribe", "a.mp3", "-f", "json").out) == {
        "text": "Hello there.",
        "language": "en",
        "duration": 1.5,
        "model": "fake",
        "segments": [
            {
                "text": "Hello there.",
                "start": 0.0,
                "end": 1.0,
                "words": [
                    {"text": "Hello", "start": 0.0, "end": 0.4, "confidence": 0.9},
                    {"text": "there.", "start": 0.4, "end": 1.0, "confidence": 0.812},
                ],
            }
        ],
        "problems": [],
    }
    lines = call("transcribe", "a.mp3", "b.mp3", "-f", "json").out.splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["a.mp3", "b.mp3"]


def test_words_are_lines_of_columns(call: Call, touch: Touch) -> None:
    touch("a.mp3")
    assert call("transcribe", "a.mp3", "-f", "words").out == "0.000\t0.400\t0.900\tHello\n0.400\t1.000\t0.812\tthere.\n"


def test_missing_times_are_null(call: Call, touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("a.mp3")
    plain = Transcript("hello", 1.0, segments=(Segment("hello", words=(Word("hello"),)),))
    fake = SimpleNamespace(transcribe=lambda *_, **__: plain)
    monkeypatch.setattr(command, "open_recognizer", lambda _: fake)
    assert call("transcribe", "a.mp3", "-f", "words").out == "\t\t\thello\n"
    words = json.loads(call("transcribe", "a.mp3", "-f", "json").out)["segments"][0]["words"]
    assert words == [{"text": "hello", "start": None, "end": None, "confidence": None}]
    done = call("transcribe", "a.mp3", "-f", "srt")
    assert (done.code, done.out) == (2, "")
    assert "has none" in done.err


def test_subtitles(call: Call, touch: Touch) -> None:
    touch("a.mp3")
    assert call("transcribe", "a.mp3", "-f", "srt").out.startswith("1\n00:00:00,000 --> 00:00:01,000\nHello there.\n")
    assert call("transcribe", "a.mp3", "-f", "vtt").out.startswith("WEBVTT\n\n00:00:00.000 --> ")


@pytest.mark.parametrize("form", ["srt", "vtt", "words"])
def test_several_subtitles_need_files(call: Call, touch: Touch, form: str) -> None:
    touch("a.mp3", "b.mp3")
    for line in (["a.mp3", "b.mp3"], ["a.mp3", "--channels", "split"]):
        done = call("transcribe", *line, "-f", form)
        assert (done.code, done.out) == (2, "")
        assert "hint: add -o FOLDER" in done.err


def test_stdin(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO(b"12345")
    stream.name = "<stdin>"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream, isatty=lambda: False))
    assert call("transcribe", "-").out == "5 bytes\n"


def test_a_terminal_is_not_a_recording(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    done = call("transcribe", "-")
    assert done.code == 2
    assert "stdin is a terminal" in done.err


def test_a_bad_file_does_not_stop_the_others(call: Call, touch: Touch) -> None:
    touch("bad.mp3", "good.mp3")
    done = call("transcribe", "bad.mp3", "missing.mp3", "good.mp3")
    assert done.code == 2
    assert done.out == "==> good.mp3 <==\nHello there.\n"
    assert done.err.splitlines() == [
        "error: missing.mp3: no such file",
        "hint: check the name; quote it if it has spaces",
        "error: bad.mp3: is not audio",
        "hint: convert it",
    ]


def test_a_crash_exits_with_one_and_does_not_stop_the_others(call: Call, touch: Touch) -> None:
    touch("boom.mp3", "good.mp3", "bad.mp3")
    done = call("transcribe", "boom.mp3", "good.mp3", "bad.mp3")
    assert done.code == 1
    assert "Hello there." in done.out
    assert "error: boom.mp3: Conure failed: RuntimeError: a bug of ours\nhint: use --debug" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in call("transcribe", "boom.mp3", "--debug").err


def test_errors_as_json(call: Call, touch: Touch) -> None:
    touch("bad.mp3", "boom.mp3")
    done = call("transcribe", "bad.mp3", "boom.mp3", "missing.mp3", "--json")
    errors = [json.loads(line)["error"] for line in done.err.splitlines()]
    assert [(error["code"], error["input"]) for error in errors] == [
        ("audio_not_found", "missing.mp3"),
        ("unsupported_audio", "bad.mp3"),
        ("internal", "boom.mp3"),
    ]
    assert errors[1] == {
        "code": "unsupported_audio",
        "message": "bad.mp3: is not audio",
        "hint": "convert it",
        "input": "bad.mp3",
    }
    usage = json.loads(call("transcribe", "--json", "bad.mp3", "--channels", "both").err)["error"]
    assert usage["code"] == "bad_option"


def test_an_error_of_all_recordings_is_reported_once(call: Call, touch: Touch) -> None:
    touch("a.mp3", "b.mp3")
    done = call("transcribe", "a.mp3", "b.mp3", "--language", "xx")
    assert done.code == 2
    assert done.err.splitlines() == ["error: fake does not know the language 'xx'", "hint: it knows en"]


def test_interrupted(call: Call, touch: Touch, folder: Path) -> None:
    touch("a.mp3", "stop.mp3", "z.mp3")
    assert call("transcribe", "a.mp3", "stop.mp3", "z.mp3", "-o", "out").code == 130
    assert [path.name for path in (folder / "out").iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("line", "error_text", "hint"),
    [
        ([], "no recording given", "conure transcribe talk.mp3"),
        (["--modle", "tiny", "a.mp3"], "no such option: --modle", "did you mean --model?"),
        (["a.mp3", "--device", "tpu"], "--device is 'tpu'", "it must be auto, cpu, cuda or cuda:N"),
        (["a.mp3", "-f", "pdf"], 'Invalid value "pdf" for -f', "`conure transcribe --help`"),
        (
            ["a.mp3", "--max-hours", "soon"],
            "Invalid value for --max-hours: unable to convert",
            "`conure transcribe --help`",
        ),
        (["a.mp3", "-o", "--split"], "-o takes a file or a folder, not '--split'", "./--split"),
        (["a.mp3", "--max-hours", "0"], "--max-hours is 0", "greater than 0"),
    ],
)
def test_invalid_arguments(
    call: Call, touch: Touch, recognizers: list[FakeRecognizer], line: list[str], error_text: str, hint: str
) -> None:
    touch("a.mp3")
    done = call("transcribe", *line)
    assert (done.code, done.out) == (2, "")
    error, advice = done.err.splitlines()
    assert error.startswith(f"error: {error_text}")
    assert advice.startswith("hint: ")
    assert hint in advice
    assert recognizers == []


def test_a_file_may_begin_with_a_hyphen(call: Call, touch: Touch) -> None:
    touch("-talk.mp3")
    assert call("transcribe", "-talk.mp3").out == "Hello there.\n"
    assert call("transcribe", "--", "-talk.mp3").out == "Hello there.\n"


def test_escape_sequences_in_names_are_escaped(call: Call) -> None:
    done = call("transcribe", "\x1b[31mred\n.mp3")
    assert "\x1b" not in done.err
    assert done.err.count("\n") == 2


def test_split_channels(call: Call, touch: Touch, folder: Path) -> None:
    touch("call.wav")
    done = call("transcribe", "call.wav", "--channels", "split")
    assert done.out == "==> call.wav, channel 0 <==\nHello there.\n==> call.wav, channel 1 <==\nHello there.\n"
    lines = call("transcribe", "call.wav", "--channels", "split", "-f", "json").out.splitlines()
    assert [json.loads(line)["channel"] for line in lines] == [0, 1]
    assert call("transcribe", "call.wav", "--channels", "split", "-f", "srt", "-o", "out/").code == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["call.channel0.srt", "call.channel1.srt"]


def test_logging(call: Call, touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("a.mp3")

    def noisy(self: FakeRecognizer, *_: object, **__: object) -> Transcript:
        log = logging.getLogger("conure.somewhere")
        log.debug("a detail")
        log.info("chose the\nfastest")
        log.warning("cut off")
        return Transcript("hello", 1.0)

    monkeypatch.setattr(FakeRecognizer, "transcribe", noisy)
    assert call("transcribe", "a.mp3").err == "warning: cut off\n"
    verbose = call("transcribe", "a.mp3", "--verbose").err.splitlines()
    assert [line.split(" ", 1)[1] for line in verbose] == [
        "info    conure.somewhere: chose the fastest",
        "warning conure.somewhere: cut off",
    ]
    assert len(call("transcribe", "a.mp3", "--debug").err.splitlines()) == 3
    fields = json.loads(call("transcribe", "a.mp3", "--json").err)["log"]
    assert fields.pop("time") == pytest.approx(time.time(), abs=60)
    assert fields == {"level": "warning", "place": "conure.somewhere", "message": "cut off"}


@pytest.mark.torch
def test_the_real_recognizer_fits(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights: the words mean nothing, but every road is the real one."""
    data = Path(__file__).parent.parent / "data"
    recording = data.parents[1] / "src/conure/data/jfk.flac"
    options = ["--model", str(data / "parity" / "tdt.nemo"), "--runner", "torch", "-f", "json", "-o", "out/"]
    with recording.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file, isatty=lambda: False))
        assert main(["transcribe", "-", str(recording), *options]) == 0
    assert capsys.readouterr().err == ""
    of_stdin, of_file = (json.loads((folder / "out" / name).read_text()) for name in ("stdin.json", "jfk.json"))
    assert of_file["duration"] == pytest.approx(11.0, abs=0.1)
    assert of_file["segments"]
    assert of_stdin == of_file


def test_a_track_is_a_number_from_one(call: Call, touch: Touch) -> None:
    touch("a.mp3")
    for wrong in ("0", "-1", "two"):
        assert call("transcribe", "a.mp3", f"--track={wrong}").code == 2
