"""Bars: on a terminal, after a while, and never on stdout."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from conure.cli import progress
from conure.safe_text import one_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fake_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called in the test itself: pytest sets stderr anew after fixtures."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console(stderr=True, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "console", lambda: console)
    return stream


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.audio_bar("a.mp3") as update:
        assert update is None
    with progress.download_bar("nothing comes"):
        pass
    with progress.download_bar("a model (2.5 GB)") as update_bytes:
        update_bytes(1, None)
        update_bytes(2, None)
    with progress.spinner("loading"):
        pass
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "downloading a model (2.5 GB)\n")


def test_no_bar_for_short_work(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = fake_terminal(monkeypatch)
    with progress.audio_bar("a.mp3") as update:
        assert update is not None
        update(1.0, 2.0)
    assert terminal.getvalue() == ""


def test_a_bar_for_long_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = fake_terminal(monkeypatch)
    monkeypatch.setattr(progress, "DELAY", 0.0)
    with progress.audio_bar("[talk]\x1b.mp3") as update:
        assert update is not None
        update(5.0, None)
        update(3725.0, 7200.0)
        sys.stdout.write("a transcript\n")
    shown = terminal.getvalue()
    assert "[talk]\\x1b.mp3" in shown
    assert "1:02:05 of 2:00:00" in shown
    assert capsys.readouterr().out == "a transcript\n"
    with progress.download_bar("tiny") as update_bytes:
        update_bytes(10_000_000, 20_000_000)
    assert "10.0/20.0 MB" in terminal.getvalue()
    with progress.spinner("loading"):
        pass
    assert "loading" in terminal.getvalue()


def test_one_line() -> None:
    assert one_line(" a\n b\tc\x07é今\udc80 ") == "a b c\\x07é今\\udc80"
