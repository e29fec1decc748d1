"""Deepgram's parameters, words, paragraphs and errors, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from conure.engine.plan import ModelInfo
from conure.errors import BadOption, TooMany, UnsupportedAudio
from conure.protocols.deepgram.errors import close_code_and_reason, error_response
from conure.protocols.deepgram.file_params import FileParams
from conure.protocols.deepgram.query import DeepgramQuery
from conure.protocols.deepgram.transcripts import render_response
from conure.protocols.deepgram.words import alternative, model_info, model_uuid
from conure.service.events import Failed
from conure.text.segments import segments_from_words
from conure.types import Transcript, Word

MODEL = ModelInfo("parakeet-tdt-0.6b-v3", "parakeet", "", b"", 0, languages=("en", "de"))
ENGLISH = ModelInfo("mine", "mine", "", b"", 0, languages=("en",))


class OneModel:
    """A model directory with one model."""

    def __init__(self, model: ModelInfo) -> None:
        self._model = model

    def find_file_model(self, name: str | None) -> ModelInfo:
        return self._model


def parse(*pairs: tuple[str, str], model: ModelInfo = MODEL) -> FileParams:
    return FileParams.parse(DeepgramQuery(pairs), OneModel(model))  # type: ignore[arg-type]


def words_of(text: str, start: float = 0.0, pauses: dict[int, float] | None = None) -> tuple[Word, ...]:
    """One word per second, each half a second long; `pauses` adds seconds before a word."""
    words = []
    for at, part in enumerate(text.split()):
        start += (pauses or {}).get(at, 0.0)
        words.append(Word(part, start, start + 0.5, 0.8))
        start += 1.0
    return tuple(words)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("True", True), ("1", True), ("", True), ("false", False), (" FALSE ", False)],
)
def test_flags(value: str, expected: bool) -> None:
    assert DeepgramQuery([("punctuate", value)]).flag("punctuate") is expected


def test_invalid_flags() -> None:
    assert DeepgramQuery([]).flag("punctuate", True)
    assert DeepgramQuery([("x", "false"), ("x", "true")]).flag("x")
    with pytest.raises(BadOption, match="'maybe'"):
        DeepgramQuery([("x", "maybe")]).flag("x")


def test_numbers() -> None:
    query = DeepgramQuery([("a", "0.8"), ("b", ""), ("c", "x"), ("d", "inf"), ("e", "16000")])
    assert query.number("a", 1) == 0.8
    assert query.number("b", 1) == 1
    assert query.whole("e", 1) == 16000
    for name in "cd":
        with pytest.raises(BadOption, match=name):
            query.number(name, 1)
    with pytest.raises(BadOption, match=r"a is 0\.8"):
        query.whole("a", 1)


def test_milliseconds_accept_booleans() -> None:
    query = DeepgramQuery([("on", "true"), ("off", "false"), ("some", "300"), ("bad", "-1"), ("worse", "soon")])
    found = [query.milliseconds(name) for name in ("on", "off", "some", "none")]
    assert found == [True, False, 300.0, None]
    for name in ("bad", "worse"):
        with pytest.raises(BadOption, match=name):
            query.milliseconds(name)


def test_ignored_lists_requested_parameters() -> None:
    query = DeepgramQuery(
        [("diarize", "true"), ("redact", "pci"), ("redact", "ssn"), ("numerals", "false"), ("tag", "x"), ("b", "")]
    )
    assert query.ignored({"tag"}) == ["diarize", "redact"]
    assert query.texts("redact") == ["pci", "ssn"]
    assert query.text("redact") == "ssn"
    assert query.text("b") is None
    assert "b" in query


def test_written_and_lexical_words() -> None:
    words = words_of("Hello, World — 50%.")
    written = alternative(words, written=True)
    assert written["transcript"] == "Hello, World — 50%."
    assert [(word["word"], word["punctuated_word"]) for word in written["words"]] == [
        ("hello", "Hello,"),
        ("world", "World"),
        ("—", "—"),
        ("50%", "50%."),
    ]
    bare = alternative(words, written=False)
    assert bare["transcript"] == "hello world 50%"
    assert [word["word"] for word in bare["words"]] == ["hello", "world", "50%"]
    assert all("punctuated_word" not in word for word in bare["words"])
    assert bare["confidence"] == 0.8
    assert "languages" not in bare
    assert alternative(words, True, ["en"])["languages"] == ["en"]


def test_no_words_and_unknown_confidence() -> None:
    assert alternative((), True) == {"transcript": "", "confidence": 0.0, "words": []}
    assert alternative((Word("a"),), True)["confidence"] is None


def test_model_uuids_are_stable() -> None:
    assert model_uuid(MODEL) == model_uuid(MODEL) != model_uuid(ENGLISH)
    assert model_info(MODEL)["arch"] == "parakeet-tdt"
    assert model_info(ENGLISH)["name"] == "mine"


@pytest.mark.parametrize(
    ("pairs", "model", "language"),
    [
        ([], MODEL, None),
        ([("language", "de")], MODEL, "de"),
        ([("language", "multi")], MODEL, None),
        ([("language", "multi")], ENGLISH, "multi"),
        ([("language", "de"), ("detect_language", "true")], MODEL, None),
        ([("language", "de"), ("detect_language", "false")], MODEL, "de"),
        ([("detect_language", "en"), ("detect_language", "fr")], MODEL, None),
    ],
)
def test_languages(pairs: list[tuple[str, str]], model: ModelInfo, language: str | None) -> None:
    assert parse(*pairs, model=model).language == language


def test_monolingual_model_does_not_detect_languages() -> None:
    assert parse(("detect_language", "true"), model=ENGLISH).ignored == ("detect_language",)
    assert parse(("detect_language", "true")).ignored == ()


@pytest.mark.parametrize(
    ("name", "written"), [("punctuate", True), ("smart_format", True), ("paragraphs", True), ("numerals", False)]
)
def test_parameters_that_request_written_form(name: str, written: bool) -> None:
    assert parse((name, "true")).written is written


def paragraphs(words: tuple[Word, ...]) -> dict[str, Any]:
    segments = render_response(parse(("paragraphs", "true")), [transcript(words)], "id", "sha")
    found: dict[str, Any] = segments["results"]["channels"][0]["alternatives"][0]["paragraphs"]
    return found


def transcript(words: tuple[Word, ...]) -> Transcript:
    return Transcript("", 9.0, segments=tuple(segments_from_words(words)))


def test_paragraphs_end_at_pauses() -> None:
    result = paragraphs(words_of("One two. Three. Four five.", pauses={3: 1.5}))
    assert result["transcript"] == "\nOne two. Three.\n\nFour five."
    first, second = result["paragraphs"]
    assert first["sentences"] == [
        {"text": "One two.", "start": 0.0, "end": 1.5},
        {"text": "Three.", "start": 2.0, "end": 2.5},
    ]
    assert (first["num_words"], first["start"], first["end"]) == (3, 0.0, 2.5)
    assert second["num_words"] == 2


def test_paragraphs_end_when_they_are_long() -> None:
    result = paragraphs(words_of("One. " * 14))
    assert [paragraph["num_words"] for paragraph in result["paragraphs"]] == [6, 6, 2]
    assert paragraphs(()) == {"transcript": "\n", "paragraphs": []}


def test_utterances_of_channels_are_ordered_by_start() -> None:
    left, right = words_of("one two", pauses={1: 4.0}), words_of("three", start=2.0)
    result = render_response(parse(("utterances", "true")), [transcript(left), transcript(right)], "id", "sha")[
        "results"
    ]
    assert [(item["channel"], item["transcript"]) for item in result["utterances"]] == [
        (0, "one"),
        (1, "three"),
        (0, "two"),
    ]
    assert len(result["channels"]) == 2


def test_rejections() -> None:
    refused = error_response(TooMany("two streams are open", "close one", 7.4), "the-id")
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "7"
    assert refused.headers["dg-request-id"] == "the-id"
    assert error_response(UnsupportedAudio("ü\n中"), "").headers["dg-error"] == "%C3%BC %E4%B8%AD"


def test_close_reasons_fit_the_limit() -> None:
    code, reason = close_code_and_reason(Failed("idle", "ü" * 200))
    assert code == 1011
    assert reason.startswith("NET-0001: ü")
    assert len(reason.encode()) <= 123
