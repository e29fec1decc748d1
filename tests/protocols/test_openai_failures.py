"""OpenAI's REST endpoints with fake services: rejected keys, limits, and failures during a response."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import httpx2
import pytest

from conure.engine.plan import ModelInfo
from conure.errors import Busy, EngineFailed, OutOfMemory, TooMany, Unauthorized
from conure.protocols import transcription_progress as making
from conure.protocols.http.app import web_app
from conure.protocols.services import Services
from conure.service.access import ANONYMOUS, Caller
from conure.service.model_directory import ModelDirectory
from conure.text.segments import segments_from_words
from conure.text.tokenizer import LabelTokenizer
from conure.text.words import join_words
from conure.types import Token, Transcript, Word
from tests.protocols.forms import TRANSCRIPTIONS, Field, parts
from tests.waiting import until

PIECES = ("▁you", "▁l", "i", "ke", "▁日", "本", "。", "<0xC3>", "<0x89>", "▁")
MODEL = ModelInfo(
    "european", "european", "labels.json", json.dumps(PIECES).encode(), len(PIECES), ("en", "de"), supports_clips=True
)


def word(text: str, start: float, *ids: int) -> Word:
    tokens = tuple(Token(token, start, start + 0.2, -0.5) for token in ids)
    return Word(text, start, start + 0.2, 0.9, tokens)


WORDS = [word("you", 0.0, 0), word("like", 1.5, 1, 2, 3), word("日本。", 3.0, 4, 5, 6), word("É", 4.5, 9, 7, 8)]
TEXT = "you like 日本。É"


class KeyedAccess:
    def identify(self, secret: str | None) -> Caller:
        if secret != "right":
            raise Unauthorized("this server needs a key", "send it as a bearer token")
        return ANONYMOUS


class FakeFiles:
    """Reports words one by one, then returns, fails, or never ends."""

    def __init__(
        self, words: list[Word], failure: Exception | None = None, *, wait: float = 0.0, endless: bool = False
    ) -> None:
        """`wait`: seconds before each word and at the end."""
        self.words, self.failure, self.wait, self.endless = words, failure, wait, endless
        self.has_sent_words = self.cancelled = False

    async def transcribe(
        self,
        file: BinaryIO,
        card: ModelInfo,
        language: str | None,
        caller: Caller,
        heard: Callable[[Word], None] | None = None,
        track: int | None = None,
    ) -> Transcript:
        try:
            for word in self.words:
                if self.wait:
                    await asyncio.sleep(self.wait)
                if heard:
                    heard(word)
            await asyncio.sleep(self.wait)
            self.has_sent_words = True
            if self.endless:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.failure:
            raise self.failure
        return Transcript(
            join_words(self.words), 5.0, language, card.name, segments=tuple(segments_from_words(self.words))
        )


def make_services(files: FakeFiles | None = None, access: Any = None) -> Services:
    tokenizers = SimpleNamespace(of=lambda card: LabelTokenizer(PIECES))
    engine = SimpleNamespace(model_infos=(MODEL,), models_by_name={MODEL.name: MODEL})
    live = SimpleNamespace(models=ModelDirectory(cast(Any, engine), (), (MODEL.name,)), tokenizers=tokenizers)
    options = {"access": access} if access else {}
    return Services(cast(Any, live), cast(Any, files or FakeFiles(WORDS)), cast(Any, None), **options)


def send_request(
    services: Services, *fields: Field, path: str = TRANSCRIPTIONS, key: str = "", method: str = "POST"
) -> httpx2.Response:
    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(web_app(services, ("native", "marker")))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx2.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client:
            form = parts(fields, b"speech") if method == "POST" else None
            return await client.request(method, path, files=form)

    return asyncio.run(request())


def events(response: httpx2.Response) -> list[dict[str, Any]]:
    return [json.loads(block.removeprefix("data: ")) for block in response.text.removesuffix("\n\n").split("\n\n")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", TRANSCRIPTIONS),
        ("POST", "/v1/audio/translations"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/european"),
    ],
)
def test_key_is_required(method: str, path: str) -> None:
    for key in ("", "wrong"):
        response = send_request(make_services(access=KeyedAccess()), path=path, key=key, method=method)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.json()["error"]["type"] == "authentication_error"
    assert send_request(make_services(access=KeyedAccess()), path=path, key="right", method=method).status_code in (
        200,
        400,
    )


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize(
    ("failure", "status", "type_", "code", "retry_after"),
    [
        (Busy("64 recordings wait already", "try again", 2.2), 503, "server_error", "busy", "3"),
        (TooMany("3 recordings at once", None, 0.1), 429, "rate_limit_error", "rate_limit_exceeded", "1"),
        (OutOfMemory("too little"), 507, "server_error", "out_of_memory", None),
        (EngineFailed("it broke"), 500, "server_error", "engine_failed", None),
        (ZeroDivisionError("a mistake of ours"), 500, "server_error", "engine_failed", None),
    ],
)
def test_errors_have_their_status(
    stream: str, failure: Exception, status: int, type_: str, code: str, retry_after: str | None
) -> None:
    response = send_request(make_services(FakeFiles([], failure)), ("stream", stream))
    body = response.json()["error"]
    assert (response.status_code, body["type"], body["code"]) == (status, type_, code)
    assert response.headers.get("retry-after") == retry_after


@pytest.mark.parametrize("failure", [EngineFailed("it broke"), ZeroDivisionError("a mistake of ours")])
def test_failure_during_a_stream_is_the_last_event(failure: Exception) -> None:
    response = send_request(make_services(FakeFiles(WORDS[:2], failure, wait=0.01)), ("stream", "true"))
    *deltas, last = events(response)
    assert response.status_code == 200
    assert "".join(event["delta"] for event in deltas) == "you like"
    assert last["error"]["type"] == "server_error"


def test_words_are_sent_as_they_come() -> None:
    *deltas, done = events(
        send_request(make_services(FakeFiles(WORDS, wait=0.02)), ("stream", "true"), ("include", "logprobs"))
    )
    assert [event["delta"] for event in deltas] == ["you", " like", " 日本。", "É"]
    assert [token["token"] for token in done["logprobs"]] == ["you", " l", "i", "ke", " 日", "本", "。", "", "�", "�"]
    assert b"".join(bytes(token["bytes"]) for token in done["logprobs"]).decode() == done["text"] == TEXT


def test_words_that_come_together_are_sent_in_sentences() -> None:
    *deltas, done = events(send_request(make_services(FakeFiles(WORDS)), ("stream", "true")))
    assert len(deltas) == 2
    assert "".join(event["delta"] for event in deltas) == done["text"] == TEXT


def test_keep_alive_comments_during_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "UPDATE_TIMEOUT", 0.01)
    response = send_request(make_services(FakeFiles(WORDS[:1], wait=0.1)), ("stream", "true"))
    blocks = response.text.split("\n\n")
    assert blocks[0] == ": still transcribing"
    assert [json.loads(block[6:])["type"] for block in blocks if block.startswith("data: ")] == [
        "transcript.text.delta",
        "transcript.text.done",
    ]


def test_unknown_language_is_omitted() -> None:
    assert "languages" not in send_request(make_services()).json()
    body = send_request(make_services(), ("response_format", "verbose_json")).json()
    assert body["language"] == ""
    assert "language_code" not in body
    body = send_request(make_services(), ("response_format", "verbose_json"), ("language", "de-AT")).json()
    assert (body["language"], body["language_code"]) == ("german", "de")


def test_segments_add_up_to_the_text() -> None:
    body = send_request(make_services(), ("response_format", "verbose_json")).json()
    assert len(body["segments"]) == 2
    assert "".join(segment["text"] for segment in body["segments"]) == body["text"] == TEXT
    assert all(segment["avg_logprob"] == -0.5 for segment in body["segments"])
    assert [token for segment in body["segments"] for token in segment["tokens"]] == [0, 1, 2, 3, 4, 5, 6, 9, 7, 8]


def test_model_without_timestamps_gives_text_only() -> None:
    files = FakeFiles([Word("you")])
    assert send_request(make_services(files)).json()["text"] == "you"
    for form in ("srt", "vtt", "verbose_json"):
        assert send_request(make_services(files), ("response_format", form)).status_code == 400


@pytest.mark.parametrize("stream", ["false", "true"])
def test_disconnect_cancels_the_work(stream: str) -> None:
    files = FakeFiles(WORDS, endless=True)

    async def disconnect() -> None:
        form = httpx2.Request("POST", "http://x" + TRANSCRIPTIONS, files=parts([("stream", stream)], b"speech"))
        said = [{"type": "http.request", "body": form.read(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if said:
                return said.pop()
            await until(lambda: sent_messages if stream == "true" else files.has_sent_words)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent_messages.append(message)

        sent_messages: list[Any] = []
        headers = [(name.lower().encode(), value.encode()) for name, value in form.headers.items()]
        scope = {"type": "http", "method": "POST", "path": TRANSCRIPTIONS, "headers": headers, "query_string": b""}
        await web_app(make_services(files), ("native", "marker"))(scope, receive, send)
        statuses = [message.get("status") for message in sent_messages if message["type"] == "http.response.start"]
        assert statuses == ([200] if stream == "true" else [499])

    asyncio.run(disconnect())
    assert files.cancelled
