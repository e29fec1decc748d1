"""A continuous load of recordings on a server, beside other measurements."""

from __future__ import annotations

import contextlib
import io
import threading
import time
import wave
from collections.abc import Iterator

from conure.background import spawn_thread
from conure.bench.server import Server
from conure.constants import SAMPLE_RATE

__all__ = ["UploadLoad", "run_uploads", "wav_bytes"]


class UploadLoad:
    """Counts of transcribed recordings, updated by the sending threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds = 0.0
        """Seconds of audio."""
        self.texts: set[str] = set()
        self.count = 0
        self.finished_at = time.monotonic()
        """Time of the last response."""
        self.errors: list[Exception] = []
        self.failed = threading.Event()

    def record(self, text: str, seconds: float) -> None:
        """Counts one transcribed recording."""
        with self._lock:
            self.texts.add(text)
            self.seconds += seconds
            self.count += 1
            self.finished_at = time.monotonic()


@contextlib.contextmanager
def run_uploads(server: Server, pcm: bytes, count: int, model: str | None = None) -> Iterator[UploadLoad]:
    """`count` clients, each of which sends the same audio (PCM16, 16 kHz) again after each response."""
    uploads, stop, recording = UploadLoad(), threading.Event(), wav_bytes(pcm)

    def send() -> None:
        while not stop.is_set() and not uploads.errors:
            try:
                text = server.transcribe(recording, model)
            except Exception as error:
                uploads.errors.append(error)
                uploads.failed.set()
            else:
                uploads.record(text, len(pcm) / 2 / SAMPLE_RATE)

    senders = [spawn_thread(send, "sending recordings") for _ in range(count)]
    try:
        yield uploads
    finally:
        stop.set()
        for sender in senders:
            sender.join()


def wav_bytes(pcm: bytes) -> bytes:
    """A WAV file of the audio (PCM16, 16 kHz)."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes(pcm)
    return file.getvalue()
