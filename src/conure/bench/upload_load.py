"""Recordings that a server has to transcribe all the time, beside whatever else it does."""

from __future__ import annotations

import contextlib
import io
import threading
import time
import wave
from collections.abc import Iterator

from conure.background import thread
from conure.bench.sample_speech import RATE
from conure.bench.server import Server

__all__ = ["UploadLoad", "uploading", "wav"]


class UploadLoad:
    """What has been transcribed so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds = 0.0
        """Audio."""
        self.texts: set[str] = set()
        self.count = 0
        self.until = time.monotonic()
        """When the last one was answered."""
        self.errors: list[Exception] = []
        self.failed = threading.Event()

    def note(self, text: str, seconds: float) -> None:
        """One more was answered."""
        with self._lock:
            self.texts.add(text)
            self.seconds += seconds
            self.count += 1
            self.until = time.monotonic()


@contextlib.contextmanager
def uploading(server: Server, pcm: bytes, count: int, model: str | None = None) -> Iterator[UploadLoad]:
    """So many clients, each of which sends the same speech (PCM16, 16 kHz) again as soon as it has been answered."""
    uploads, over, recording = UploadLoad(), threading.Event(), wav(pcm)

    def send() -> None:
        while not over.is_set() and not uploads.errors:
            try:
                text = server.transcribe(recording, model)
            except Exception as error:
                uploads.errors.append(error)
                uploads.failed.set()
            else:
                uploads.note(text, len(pcm) / 2 / RATE)

    sending = [thread(send, "sending recordings") for _ in range(count)]
    try:
        yield uploads
    finally:
        over.set()
        for one in sending:
            one.join()


def wav(pcm: bytes) -> bytes:
    """The same as a file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(pcm)
    return file.getvalue()
