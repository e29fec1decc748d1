"""A session with a fake engine: order of events, second passes, restarts, lag."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import numpy as np
import pytest

from conure.engine import messages as engine
from conure.errors import EngineFailed
from conure.service import live_session
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
from conure.service.live_session import LiveSession
from conure.service.second_pass import SecondPassOptions
from conure.service.session_options import SessionOptions
from conure.text.tokenizer import LabelTokenizer
from tests.service.fake_engine import CLIPS, LIVE, TOKENIZER, Engine, audio, tokens
from tests.waiting import PATIENCE, until

RATE = 16_000


class Scene:
    """A session, its engine, and what it told; lags apart, which come by the clock."""

    def __init__(self, finals: float | None = None) -> None:
        self.engine = Engine()
        self.told: list[Event] = []
        self.lags: list[Lag] = []
        second = None if finals is None else SecondPassOptions(CLIPS, TOKENIZER, finals)
        options = SessionOptions(LIVE, TOKENIZER, 160, second_pass=second)
        self.session = LiveSession(self.engine, options, self._publish)  # type: ignore[arg-type]
        self.number = next(iter(self.engine.receivers))

    def _publish(self, event: Event) -> None:
        (self.lags if isinstance(event, Lag) else self.told).append(event)  # type: ignore[arg-type]

    def texts(self) -> list[str]:
        return [event.text for event in self.told if isinstance(event, Final)]

    def speak(self, letters: str, at: float) -> None:
        """An utterance begins, and these tokens of it are heard."""
        self.engine.say(engine.SpeechStarted(self.number, at))
        self.hear(letters, at)

    def hear(self, letters: str, at: float) -> None:
        heard = tokens(letters, at)
        self.engine.say(engine.StreamTokens(self.number, heard, heard[-1].end if heard else at))

    def end(self, at: float) -> None:
        self.engine.say(engine.UtteranceEnded(self.number, at, "silence"))

    def clip(self, letters: str) -> None:
        """The oldest second pass is answered."""
        number = next(
            request.stream for request in self.engine.of(engine.Clip) if request.stream in self.engine.receivers
        )
        self.engine.say(engine.StreamTokens(number, tokens(letters, 0.3), 1.0), engine.Finished(number))


def scene(play: Callable[[Scene], Awaitable[None]], finals: float | None = None) -> Scene:
    async def run() -> Scene:
        made = Scene(finals)
        await asyncio.wait_for(play(made), PATIENCE)
        return made

    return asyncio.run(run())


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def test_events_come_in_the_order_of_the_stream() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(2))
        on.speak("ab", 0.4)
        on.hear("k", 0.56)
        on.end(1.2)
        on.session.finalize(7)
        on.engine.say(engine.Marker(on.number, 7))
        on.session.close()
        on.engine.say(engine.Finished(on.number))

    told = scene(play).told
    assert kinds(told) == [SpeechStarted, Partial, Partial, UtteranceEnded, Final, Marker, Finished]
    first, second = [event for event in told if isinstance(event, Partial)]
    assert (first.stable, first.tail, len(first.tokens)) == ("a", " b", 2)
    assert (second.stable, second.tail, len(second.tokens)) == ("a", " bk", 1)
    (final,) = [event for event in told if isinstance(event, Final)]
    assert (final.text, final.start, final.end, final.reason) == ("a bk", 0.4, 0.64, "silence")
    assert told[-1] == Finished(2.0)


def test_a_late_end_token_starts_no_utterance() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(3))
        on.speak("ab", 0.4)
        on.end(1.2)
        on.hear(".", 1.28)
        on.speak("c", 2.0)
        on.end(2.5)

    told = scene(play).told
    assert kinds(told) == [SpeechStarted, Partial, UtteranceEnded, Final] * 2


def test_networks_with_an_end_token() -> None:
    assert SessionOptions(LIVE, TOKENIZER, 160).has_end_token
    assert not SessionOptions(LIVE, LabelTokenizer(["a", "b"]), 160).has_end_token


def test_guesses_are_no_tokens() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(2))
        on.engine.say(engine.SpeechStarted(on.number, 0.2))
        on.engine.say(engine.PartialTokens(on.number, tokens("ab", 0.2), 0.5))
        on.engine.say(engine.PartialTokens(on.number, tokens("acd", 0.2), 0.8))
        on.hear("ace", 0.2)
        on.end(1.0)

    on = scene(play)
    partials = [event for event in on.told if isinstance(event, Partial)]
    assert [(event.stable, event.tail) for event in partials] == [("", "a b"), ("", "a c d"), ("a c", " e")]
    assert [len(event.tokens) for event in partials] == [0, 0, 3]
    assert on.texts() == ["a c e"]


def test_a_second_pass_holds_up_finals_and_markers_but_not_partials() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(4))
        on.speak("a", 0.4)
        on.end(1.0)
        on.speak("b", 1.4)
        on.end(2.0)
        on.session.finalize(3)
        on.engine.say(engine.Marker(on.number, 3))
        on.speak("c", 2.4)
        assert on.texts() == []
        _, second = on.engine.of(engine.Clip)
        on.engine.say(engine.StreamTokens(second.stream, tokens("f", 0.3), 1.0), engine.Finished(second.stream))
        assert on.texts() == []
        on.clip("e")

    told = scene(play, finals=60.0).told
    late = [event for event in told if isinstance(event, Final | Marker)]
    assert [getattr(event, "text", "marker") for event in late] == ["e", "f", "marker"]
    assert late[0].model == "clips"  # type: ignore[union-attr]
    assert told.index(late[0]) > max(index for index, event in enumerate(told) if isinstance(event, Partial))


def test_a_second_pass_gets_the_utterance_with_its_margin() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(4))
        on.speak("a", 1.0)
        on.end(2.5)
        (clip,) = on.engine.of(engine.Clip)
        np.testing.assert_array_equal(clip.samples, audio(1.8, first=int(0.7 * RATE)))
        on.clip("e")

    final = scene(play, finals=60.0).told[-1]
    assert isinstance(final, Final)
    assert final.words[0].start == 1.0


def test_a_second_pass_that_takes_too_long_is_done_without() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(4))
        on.speak("a", 0.4)
        on.end(1.0)
        on.session.close()
        on.engine.say(engine.Finished(on.number))
        await until(lambda: on.session.has_ended)
        assert on.engine.of(engine.Cancel)

    on = scene(play, finals=0.05)
    assert on.texts() == ["a"]
    assert kinds(on.told)[-2:] == [Final, Finished]
    assert not on.engine.receivers


def test_the_end_of_a_session_cancels_its_second_passes() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(4))
        on.speak("a", 0.4)
        on.end(1.0)
        on.session.cancel()

    on = scene(play, finals=60.0)
    assert kinds(on.told)[-1] is Cancelled
    assert not on.engine.receivers
    assert len(on.engine.of(engine.Cancel)) == 2


def test_audio_without_a_final_is_replayed_to_a_restarted_engine() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(6))
        on.speak("a", 0.4)
        on.end(1.0)
        on.speak("bk", 3.0)
        begin = 1.92  # a second before the utterance, where a chunk begins
        on.session.finalize(-1)
        await on.session.push_audio(audio(1, first=6 * RATE))
        on.engine.restart()
        np.testing.assert_array_equal(on.engine.samples(), audio(7 - begin, first=round(begin * RATE)))
        order = [type(request) for request in on.engine.asked]
        assert order == [engine.Open, engine.Audio, engine.Finalize, engine.Audio]
        on.speak("bk", 3.0 - begin)
        on.hear("l", 3.16 - begin)
        on.engine.say(engine.Marker(on.number, -1))

    on = scene(play)
    assert on.texts() == ["a", "bkl"]
    assert [len(event.tokens) for event in on.told if isinstance(event, Partial)] == [1, 2, 0, 1]
    assert [event.at for event in on.told if isinstance(event, SpeechStarted)] == [0.4, 3.0]
    assert on.told[-1] == Marker(-1, 6.0)


def test_words_of_a_final_are_not_sent_again() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(3))
        on.speak("ab", 2.0)
        on.end(2.2)
        on.engine.restart()
        begin = 1.12
        on.engine.say(engine.SpeechStarted(on.number, 2.0 - begin))
        on.hear("abc", 2.0 - begin)
        on.end(2.5 - begin)

    on = scene(play)
    assert on.texts() == ["a b", "c"]
    assert [event.utterance for event in on.told if isinstance(event, SpeechStarted)] == [1, 2]


def test_a_replayed_end_of_an_earlier_utterance_is_ignored() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(3))
        on.speak("a", 1.0)
        on.end(1.3)
        on.speak("b", 1.6)
        on.engine.restart()
        begin = 0.48
        on.speak("a", 1.0 - begin)
        on.end(1.3 - begin)
        on.speak("b", 1.6 - begin)
        on.hear("c", 1.68 - begin)
        on.end(2.0 - begin)

    on = scene(play)
    assert on.texts() == ["a", "b c"]
    assert len([event for event in on.told if isinstance(event, SpeechStarted)]) == 2


def test_a_restarted_engine_repeats_finalizes_and_no_event_is_sent_twice() -> None:
    """The word at the first cut is told by the old engine, and half of it again by the new one before the cut."""
    cuts, begin = (2.55, 3.05), 2.08

    async def play(on: Scene) -> None:
        on.speak("a", 1.0)
        await cut(on, 0.0, 1.5)
        await cut(on, 1.5, cuts[0])
        on.speak("bk", 2.9)
        await cut(on, *cuts)
        await on.session.push_audio(audio(1, first=round(cuts[1] * RATE)))
        on.hear("", 3.1)
        on.session.finalize(9)
        on.engine.restart()
        order = [type(request) for request in on.engine.asked]
        assert order == [engine.Open, *[engine.Audio, engine.Finalize] * 3]
        np.testing.assert_array_equal(on.engine.samples(), audio(cuts[1] + 1 - begin, first=round(begin * RATE)))
        sizes = [len(request.samples) for request in on.engine.of(engine.Audio)]
        assert np.cumsum(sizes).tolist() == [round((at - begin) * RATE) for at in (*cuts, cuts[1] + 1)]
        markers = [request.marker for request in on.engine.of(engine.Finalize)]
        assert markers[-1] == 9
        on.engine.say(engine.StreamTokens(on.number, (), cuts[0] - begin), engine.Marker(on.number, markers[0]))
        on.speak("k", 2.98 - begin)
        on.end(cuts[1] - begin)
        on.engine.say(engine.Marker(on.number, markers[1]))
        on.speak("c", 3.2 - begin)
        on.engine.say(engine.Marker(on.number, 9))

    async def cut(on: Scene, begin: float, at: float) -> None:
        await on.session.push_audio(audio(at - begin, first=round(begin * RATE)))
        on.session.finalize(round(at * 100))
        on.engine.say(engine.StreamTokens(on.number, (), at), engine.Marker(on.number, round(at * 100)))

    on = scene(play)
    assert on.texts() == ["a", "bk", "c"]
    assert [event.number for event in on.told if isinstance(event, Marker)] == [150, 255, 305, 9]
    assert [event.utterance for event in on.told if isinstance(event, SpeechStarted)] == [1, 2, 3]


def test_a_second_restart_during_a_replay_replays_everything() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(3.05))
        on.speak("a", 2.5)
        on.session.finalize(1)
        on.engine.say(engine.StreamTokens(on.number, (), 3.05), engine.Marker(on.number, 1))
        await on.session.push_audio(audio(1, first=round(3.05 * RATE)))
        for _ in range(2):
            on.engine.restart()
            assert len(on.engine.of(engine.Finalize)) == 1
        on.speak("a", 0.42)
        on.engine.say(engine.Marker(on.number, 0))
        on.speak("b", 1.3)
        on.end(1.9)

    assert scene(play).texts() == ["a", "b"]


def test_words_that_differ_after_a_replay_are_sent() -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(3))
        on.speak("abc", 0.2)
        on.engine.restart()
        on.speak("a", 0.2)
        on.hear("dc", 0.28)
        on.end(1.0)

    on = scene(play)
    assert on.texts() == ["a d c"]
    last = [event for event in on.told if isinstance(event, Partial)][-1]
    assert len(last.tokens) == 2


def test_audio_faster_than_processing_has_back_pressure() -> None:
    async def play(on: Scene) -> None:
        pushing = asyncio.create_task(on.session.push_audio(audio(60)))
        await until(lambda: len(on.engine.samples()) >= 25 * RATE)
        assert not pushing.done()
        assert len(on.engine.samples()) == 25 * RATE
        on.engine.say(engine.UtteranceProgress(on.number, 20.0))
        await until(lambda: len(on.engine.samples()) >= 45 * RATE)
        assert len(on.engine.samples()) == 45 * RATE
        on.engine.say(engine.UtteranceProgress(on.number, 45.0))
        await pushing

    np.testing.assert_array_equal(scene(play).engine.samples(), audio(60))


def test_many_requests_for_a_final_wait() -> None:
    async def play(on: Scene) -> None:
        for marker in range(live_session.MAX_PENDING_FINALIZES):
            await asyncio.wait_for(on.session.wait_until_writable(), PATIENCE)
            on.session.finalize(marker)
        waiting = asyncio.create_task(on.session.wait_until_writable())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        on.engine.say(engine.Marker(on.number, 0))
        await waiting

    assert scene(play).told == [Marker(0, 0.0)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """That of sessions, which goes on when `now` is changed."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(live_session, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_lag_is_reported_then_a_warning_then_the_end(clock: SimpleNamespace) -> None:
    async def play(on: Scene) -> None:
        for second in range(20):
            clock.now += 1.0
            await on.session.push_audio(audio(1, first=second * RATE))
            if not on.session.has_ended:
                on.engine.say(engine.UtteranceProgress(on.number, 0.2 * (second + 1)))

    on = scene(play)
    lags = [event.seconds for event in on.lags]
    assert lags[:3] == [0.8, 1.6, 2.4]
    assert lags[-1] == 15.2
    warned, failed = on.told
    assert isinstance(warned, StreamWarning)
    assert "2.4 s behind" in warned.message
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retry_after) == ("lag_exceeded", live_session.RETRY_AFTER)
    assert on.engine.of(engine.Cancel)
    assert not on.engine.receivers


def test_audio_sent_at_once_has_only_the_lag_of_the_engine(clock: SimpleNamespace) -> None:
    async def play(on: Scene) -> None:
        pushing = asyncio.create_task(on.session.push_audio(audio(600)))
        await asyncio.sleep(0)
        for second in range(1, 300):  # at the pace of speech, and not a bit faster
            clock.now += 1.0
            on.engine.say(engine.UtteranceProgress(on.number, float(second)))
            await asyncio.sleep(0)
        for second in range(300, 330):
            if not on.session.has_ended:
                clock.now += 2.0
                on.engine.say(engine.UtteranceProgress(on.number, float(second)))
                await asyncio.sleep(0)
        await pushing

    on = scene(play)
    assert max(event.seconds for event in on.lags[:290]) <= 1.0
    *_, failed = on.told
    assert isinstance(failed, Failed)
    assert failed.code == "lag_exceeded"


def test_an_hour_sent_at_once_ends_without_a_warning(clock: SimpleNamespace) -> None:
    async def play(on: Scene) -> None:
        pushing = asyncio.create_task(on.session.push_audio(audio(3_600)))
        await asyncio.sleep(0)
        for second in range(10, 3_610, 10):
            clock.now += 5.0
            on.engine.say(engine.UtteranceProgress(on.number, float(second)))
            await asyncio.sleep(0)
        await pushing

    on = scene(play)
    assert not on.told
    assert {event.seconds for event in on.lags} == {0.0}


def test_after_a_burst_lag_is_that_of_live_audio_again(clock: SimpleNamespace) -> None:
    """A network that held up three seconds of speech makes later audio no less late."""

    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(3))
        on.engine.say(engine.UtteranceProgress(on.number, 3.0))
        for second in range(3, 8):
            clock.now += 1.0
            await on.session.push_audio(audio(1, first=second * RATE))
        on.engine.say(engine.UtteranceProgress(on.number, 3.5))

    assert scene(play).lags[-1].seconds == 4.5


def test_a_restart_tells_the_new_engine_how_late_it_is(clock: SimpleNamespace) -> None:
    async def play(on: Scene) -> None:
        for second in range(4):
            clock.now += 1.0
            await on.session.push_audio(audio(1, first=second * RATE))
        on.engine.say(engine.StreamTokens(on.number, (), 4.0))
        clock.now += 6.0
        await on.session.push_audio(audio(6, first=4 * RATE))
        on.engine.restart()
        (opened,) = on.engine.of(engine.Open)
        assert isinstance(opened, engine.Open)
        assert opened.overdue_seconds == pytest.approx(6.0 + live_session.MARGIN, abs=1.2)
        on.engine.say(engine.UtteranceProgress(on.number, 4.5))

    on = scene(play)
    assert on.lags[-1].seconds < 1.0


def test_audio_that_came_ahead_of_its_time_is_not_urgent_after_a_restart(clock: SimpleNamespace) -> None:
    async def play(on: Scene) -> None:
        await on.session.push_audio(audio(20))
        on.engine.say(engine.StreamTokens(on.number, (), 10.0))
        on.engine.restart()
        (opened,) = on.engine.of(engine.Open)
        assert isinstance(opened, engine.Open)
        assert opened.overdue_seconds == 0.0

    scene(play)


def test_time_without_an_engine_is_not_lag(clock: SimpleNamespace) -> None:
    """It said nothing for longer than a stream may lag; what came meanwhile counts from when it came back."""

    async def play(on: Scene) -> None:
        on.engine.say(engine.StreamOpened(on.number))
        for _ in range(10):
            await on.session.push_audio(audio(1.0))
            clock.now += 2.0
        on.engine.resumed_at = clock.now
        clock.now += 0.5
        on.hear("a", 0.5)

    on = scene(play)
    assert [lag.seconds for lag in on.lags] == [0.5]
    assert not any(isinstance(event, Failed) for event in on.told)


def test_it_ends_once() -> None:
    async def play(on: Scene) -> None:
        pushing = asyncio.create_task(on.session.push_audio(audio(60)))
        await asyncio.sleep(0)
        receiver = on.engine.receivers[on.number]
        receiver.on_failure(EngineFailed("gone"))
        receiver.on_failure(EngineFailed("gone again"))
        on.session.cancel()
        await pushing  # nobody is kept waiting by a session that is over

    assert scene(play).told == [Failed("engine_failed", "gone")]
