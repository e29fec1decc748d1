"""The dialect of NVIDIA's Riva and NIM: as its own client speaks it.

server  conversation.created
client  transcription_session.update ──> transcription_session.updated
client  append, commit, append, commit ...            a commit ends nothing here
        with runtime_config {"force_eou": "true"}     which does
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
from conure.protocols.realtime.items import TRANSCRIPTION, Deltas
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
MOST_SAID = 100_000
"""Words, and texts of utterances, that are kept for the last result: half a day of speech."""


def is_nim(session: Mapping[str, Any]) -> bool:
    """Whether a session has what the other dialects do not."""
    return any(section in session for section in SECTIONS)


@dataclass(frozen=True)
class NimSession:
    """Every section as the client has it."""

    shape: dict[str, Any] = field(default_factory=lambda: dict(DEFAULTS))

    @property
    def common(self) -> Session:
        asked = self.shape["input_audio_transcription"]
        transcription = {name: asked.get(name) or None for name in ("model", "language")}
        return Session().updated({"audio": {"input": {"transcription": transcription}}})

    def updated(self, changes: Mapping[str, Any]) -> Self:
        shape = dict(self.shape)
        for name in changes.keys() - {"id", "client_secret"}:
            value, before = changes[name], shape.get(name)
            if not isinstance(before, dict):
                shape[name] = value
            elif isinstance(value, dict):
                shape[name] = before | value
            elif value is not None:
                raise BadSession(f"{name} is {value!r}", "it must be an object", f"session.{name}")
        return replace(self, shape=shape)

    def audio(self, head: bytes) -> AudioFormat:
        """Files come as they are, with the name "none" for their format, and tell it themselves."""
        rate = self._whole("input_audio_params", "sample_rate_hz") or RATE
        channels = self._whole("input_audio_params", "num_channels") or 1
        is_file = self.shape["input_audio_format"] != "pcm16" and is_container(head)
        try:
            return AudioFormat("container") if is_file else AudioFormat("pcm16", rate, channels)
        except BadOption as error:
            raise BadSession(error.message, error.hint, "session.input_audio_params") from None

    def endpointing(self, hears_ends: bool) -> Endpointing:
        ours = Endpointing()
        silence = self._whole("endpointing_config", "stop_history") / 1000
        end = self._whole("endpointing_config", "stop_history_eou") / 1000
        if silence:
            ours = replace(ours, silence=silence, blanks=max(ours.blanks or 0.0, silence))
        return replace(ours, end_token=end) if end else ours

    @property
    def wants_times(self) -> bool:
        return bool(self.shape["recognition_config"].get("enable_word_time_offsets"))

    def _whole(self, section: str, name: str) -> int:
        """0 stands for the server's choice."""
        value = self.shape[section].get(name) or 0
        if not isinstance(value, int) or value < 0:
            raise BadSession(f"{section}.{name} is {value!r}", "it must be a whole number", f"session.{section}.{name}")
        return value


class NimItems:
    def __init__(self, numbers: IdSource) -> None:
        self._numbers = numbers
        self._item = numbers.item()
        self._last: str | None = None
        self.is_done = False
        """The client has said that it has no more."""
        self._deltas = Deltas()
        self._texts: deque[str] = deque(maxlen=MOST_SAID)
        self._words: deque[Word] = deque(maxlen=MOST_SAID)
        self._begun = self._ended = 0.0

    def render_event(self, event: Event, asked: SessionFields, tokenizer: Tokenizer) -> Iterator[Message]:
        match event:
            case Partial(_, stable):
                yield from self._add(stable)
            case UtteranceEnded(_, at):
                self._ended = at
            case Final(_, text, words):
                yield from self._add(text)
                if text:
                    self._texts.append(text)
                is_timed = isinstance(asked, NimSession) and asked.wants_times
                shown = [replace(word, tokens=()) for word in words] if is_timed else []
                self._words.extend(shown)
                yield self._completed(text, shown, self._begun, is_last=False)
                self._begun = self._ended
                self._next()

    def render_receipt(self) -> Message:
        """For a commit, which ends nothing."""
        return {"type": "input_audio_buffer.committed", "item_id": self._item, "previous_item_id": self._last}

    def render_answer(self, request: FinalizeRequest) -> Iterator[Message]:
        yield from ()

    def render_end(self, seconds: float) -> Iterator[Message]:
        """After `done` with all that was said."""
        if self.is_done:
            self._ended = seconds
            yield self._completed(" ".join(self._texts), self._words, 0.0, is_last=True)
        self.is_done = False
        self._texts.clear()
        self._words.clear()
        self._begun = self._ended = 0.0
        self._next()

    def _add(self, text: str) -> Iterator[Message]:
        if fresh := self._deltas.fresh(text):
            yield self._of("delta") | {"delta": fresh}

    def _completed(self, text: str, words: Iterable[Word], begun: float, is_last: bool) -> Message:
        return self._of("completed") | {
            "transcript": text,
            "is_last_result": is_last,
            "words_info": {"words": [_word(word) for word in words]},
            "usage": {"type": "duration", "seconds": round(max(self._ended - begun, 0.0), 3)},
        }

    def _next(self) -> None:
        self._last, self._item = self._item, self._numbers.item()
        self._deltas = Deltas()

    def _of(self, what: str) -> Message:
        return {"type": f"{TRANSCRIPTION}.{what}", "item_id": self._item, "content_index": 0}


def _word(word: Word) -> dict[str, Any]:
    """Its client prints numbers: what is not known is 0 there, as in Riva's own messages."""
    return {
        "word": word.text,
        "start_time": round((word.start or 0.0) * 1000),
        "end_time": round((word.end or 0.0) * 1000),
        "confidence": word.confidence or 0.0,
        "speaker_tag": 0,
    }
