"""Renders events of a session as messages of the native protocol: typed events, or `result` with the text so far."""

from __future__ import annotations

from conure.client import protocol
from conure.service.events import (
    Cancelled,
    Event,
    Failed,
    Final,
    Finished,
    Lag,
    Marker,
    Partial,
    SpeechStarted,
    StreamWarning,
    UtteranceEnded,
)

__all__ = ["ResultRenderer", "render_event"]


def render_event(seq: int, event: Event, config: protocol.Config, problems: list[str]) -> protocol.FromServer | None:
    """None for events that the client did not ask for."""
    match event:
        case SpeechStarted(utterance, at):
            return protocol.SpeechStarted(seq=seq, utterance=utterance, at=at)
        case Partial(utterance, stable, tail, _, until) if config.partials:
            return protocol.Partial(seq=seq, utterance=utterance, stable=stable, tail=tail, until=until)
        case UtteranceEnded(utterance, at, reason):
            return protocol.UtteranceEnd(seq=seq, utterance=utterance, at=at, reason=reason)
        case Final():
            return _final(seq, event, config.words)
        case Marker(number):
            return protocol.Marker(seq=seq, id=number)
        case Lag(seconds) if config.lag:
            return protocol.Lag(seq=seq, seconds=seconds)
        case StreamWarning(code, message):
            return protocol.Warned(seq=seq, code=code, message=message)
        case Finished() | Failed() | Cancelled():
            return _last(seq, event, problems)
    return None


def _last(seq: int, event: Finished | Failed | Cancelled, problems: list[str]) -> protocol.FromServer:
    match event:
        case Finished(seconds):
            return protocol.Finished(seq=seq, seconds=round(seconds, 3), problems=problems)
        case Failed(code, message, hint, retry_after):
            return protocol.Failed(seq=seq, code=code, message=message, hint=hint, retry_after=retry_after)
        case Cancelled():
            return protocol.Cancelled(seq=seq)


def _final(seq: int, final: Final, with_words: bool) -> protocol.Final:
    words = [protocol.Word(text=w.text, start=w.start, end=w.end, confidence=w.confidence) for w in final.words]
    return protocol.Final(
        seq=seq,
        utterance=final.utterance,
        text=final.text,
        start=final.start,
        end=final.end,
        reason=final.reason,
        model=final.model,
        confidence=final.confidence,
        language=final.language,
        words=words if with_words else None,
    )


class ResultRenderer:
    """Renders `result` messages: the text so far after each new token."""

    def __init__(self, stream_id: int | str) -> None:
        self.stream_id = stream_id
        self._finals: list[str] = []
        self._text = ""

    def render(self, event: Event) -> protocol.FromServer | None:
        match event:
            case SpeechStarted():
                return self._result("speech", "start_of_utterance")
            case Partial(_, stable, tail, tokens):
                self._text = stable + tail
                result = self._result("speech", "running")
                result.token_ids = [token.id for token in tokens]
                result.confidence_scores = [token.confidence for token in tokens]
                return result
            case Final(_, text):
                self._finals, self._text = [*self._finals, text] if text else self._finals, ""
                return self._result("silence", "end_of_utterance")
            case Finished():
                result = self._result("silence", "end_of_utterance")
                result.is_final = True
                return result
            case Failed(code, message, hint, retry_after):
                return protocol.Error(message=message, code=code, hint=hint, retry_after=retry_after)
        return None

    def _result(self, state: protocol.State, turn: protocol.Turn) -> protocol.Result:
        return protocol.Result(
            stream_id=self.stream_id,
            text=" ".join([*self._finals, self._text]).strip(),
            token_ids=[],
            confidence_scores=[],
            is_final=False,
            last_state=state,
            turn_detection=turn,
        )
