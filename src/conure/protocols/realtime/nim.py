"""The dialect of NVIDIA's Riva and NIM, as used by its own client.

server  conversation.created
client  transcription_session.update ──> transcription_session.updated
client  append, commit, append, commit ...            a commit does not end an utterance
        runtime_config {"force_eou": "true"}          ends the utterance
server  delta ... completed, for each utterance
client  input_audio_buffer.done
server  completed with is_last_result and the text of all utterances
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from conure.audio.containers import is_container
from conure.audio.formats import AudioFormat
from conure.errors import BadOption
from conure.protocols.append_only_text import AppendOnlyText
from conure.protocols.realtime.items import TRANSCRIPTION
from conure.protocols.realtime.messages import IdSource, Message
from conure.protocols.realtime.session import BadSession, Session, SessionFields
from conure.protocols.realtime.streams import FinalizeRequest
from conure.service.events import Event, Final, Partial, UtteranceEnded
from conure.text.tokenizer import Tokenizer
from conure.types import Word
from conure.vad.endpointing import Endpointing

__all__ = ["NimItems", "NimSession", "is_nim"]

SECTIONS = ("input_audio_params", "recognition_config", "endpointing_config", "word_boosting", "speaker_diarization")
RATE = 16_000
DEFAULTS: dict[str, Any] = {
    "object": "realtime.transcription_session",
    "modalities": ["text"],
    "input_audio_format": "pcm16",
    "input_audio_transcription": {"language": None, "model": None, "prompt": ""},
    "input_audio_params": {"sample_rate_hz": RATE, "num_channels": 1},
    "recognition_config": {
        "max_alternatives": 1,
        "enable_automatic_punctuation": True,
        "enable_word_time_offsets": False,
        "enable_profanity_filter": False,
        "enable_verbatim_transcripts": True,
    },
    "speaker_diarization": {"enable_speaker_diarization": False, "max_speaker_count": 8},
    "word_boosting": {"enable_word_boosting": False, "word_boosting_list": []},
    "endpointing_config": {},
}
MAX_KEPT_RESULTS = 100_000
"""Words, and texts of utterances, kept for the last result: half a day of speech."""


def is_nim(session: Mapping[str, Any]) -> bool:
    """Whether a session has sections that only this dialect defines."""
    return any(section in session for section in SECTIONS)


@dataclass(frozen=True)
class NimSession:
    """The session in the client's own format."""

    fields: dict[str, Any] = field(default_factory=lambda: dict(DEFAULTS))

    @property
    def common(self) -> Session:
        settings = self.fields["input_audio_transcription"]
        transcription = {name: settings.get(name) or None for name in ("model", "language")}
        return Session().updated({"audio": {"input": {"transcription": transcription}}})

    def updated(self, changes: Mapping[str, Any]) -> Self:
        fields = dict(self.fields)
        for name in changes.keys() - {"id", "client_secret"}:
            value, current = changes[name], fields.get(name)
            if not isinstance(current, dict):
                fields[name] = value
            elif isinstance(value, dict):
                fields[name] = current | value
            elif value is not None:
                raise BadSession(f"{name} is {value!r}", "it must be an object", f"session.{name}")
        return replace(self, fields=fields)

    def audio(self, head: bytes) -> AudioFormat:
        """A client that streams a file names the format "none"; the container is detected from its first bytes."""
        rate = self._non_negative_int("input_audio_params", "sample_rate_hz") or RATE
        channels = self._non_negative_int("input_audio_params", "num_channels") or 1
        is_file = self.fields["input_audio_format"] != "pcm16" and is_container(head)
        try:
            return AudioFormat("container") if is_file else AudioFormat("pcm16", rate, channels)
        except BadOption as error:
            raise BadSession(error.message, error.hint, "session.input_audio_params") from None

    def endpointing(self, has_end_token: bool) -> Endpointing:
        endpointing = Endpointing()
        silence = self._non_negative_int("endpointing_config", "stop_history") / 1000
        end = self._non_negative_int("endpointing_config", "stop_history_eou") / 1000
        if silence:
            endpointing = replace(endpointing, silence=silence, blanks=max(endpointing.blanks or 0.0, silence))
        return replace(endpointing, end_token=end) if end else endpointing

    @property
    def wants_times(self) -> bool:
        return bool(self.fields["recognition_config"].get("enable_word_time_offsets"))

    def _non_negative_int(self, section: str, name: str) -> int:
        """Returns 0 for unset values: the server's default."""
        value = self.fields[section].get(name) or 0
        if not isinstance(value, int) or value < 0:
            raise BadSession(
                f"{section}.{name} is {value!r}", "it must be a non-negative integer", f"session.{section}.{name}"
            )
        return value


class NimItems:
    def __init__(self, ids: IdSource) -> None:
        self._ids = ids
        self._item = ids.item()
        self._previous_item: str | None = None
        self.is_done = False
        """Whether the client has sent `input_audio_buffer.done`."""
        self._text = AppendOnlyText()
        self._texts: deque[str] = deque(maxlen=MAX_KEPT_RESULTS)
        self._words: deque[Word] = deque(maxlen=MAX_KEPT_RESULTS)
        self._start = self._end = 0.0

    def render_event(self, event: Event, session: SessionFields, tokenizer: Tokenizer) -> Iterator[Message]:
        match event:
            case Partial(_, stable):
                yield from self._add(stable)
            case UtteranceEnded(_, at):
                self._end = at
            case Final(_, text, words):
                yield from self._add(text)
                if text:
                    self._texts.append(text)
                is_timed = isinstance(session, NimSession) and session.wants_times
                shown = [replace(word, tokens=()) for word in words] if is_timed else []
                self._words.extend(shown)
                yield self._completed(text, shown, self._start, is_last=False)
                self._start = self._end
                self._start_next_item()

    def render_receipt(self) -> Message:
        """Acknowledges a commit, which does not end an utterance."""
        return {"type": "input_audio_buffer.committed", "item_id": self._item, "previous_item_id": self._previous_item}

    def render_answer(self, request: FinalizeRequest) -> Iterator[Message]:
        yield from ()

    def render_end(self, seconds: float) -> Iterator[Message]:
        """After `done`, renders the last result with the whole text."""
        if self.is_done:
            self._end = seconds
            yield self._completed(" ".join(self._texts), self._words, 0.0, is_last=True)
        self.is_done = False
        self._texts.clear()
        self._words.clear()
        self._start = self._end = 0.0
        self._start_next_item()

    def _add(self, text: str) -> Iterator[Message]:
        if delta := self._text.append(text):
            yield self._event("delta") | {"delta": delta}

    def _completed(self, text: str, words: Iterable[Word], start: float, is_last: bool) -> Message:
        return self._event("completed") | {
            "transcript": text,
            "is_last_result": is_last,
            "words_info": {"words": [_word(word) for word in words]},
            "usage": {"type": "duration", "seconds": round(max(self._end - start, 0.0), 3)},
        }

    def _start_next_item(self) -> None:
        self._previous_item, self._item = self._item, self._ids.item()
        self._text = AppendOnlyText()

    def _event(self, kind: str) -> Message:
        return {"type": f"{TRANSCRIPTION}.{kind}", "item_id": self._item, "content_index": 0}


def _word(word: Word) -> dict[str, Any]:
    """Unknown values are 0, as in Riva's own messages: the client formats them as numbers."""
    return {
        "word": word.text,
        "start_time": round((word.start or 0.0) * 1000),
        "end_time": round((word.end or 0.0) * 1000),
        "confidence": word.confidence or 0.0,
        "speaker_tag": 0,
    }
