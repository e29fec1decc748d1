"""Recordings that a server has to transcribe all the time, beside whatever else it does."""

from __future__ import annotations

import contextlib
import io
import threading
import wave
from collections.abc import Iterator

from conure.bench.server import Server
from conure.bench.speech import RATE

__all__ = ["Uploads", "uploading"]


class Uploads:
    """What has been transcribed so far."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """Audio."""
        self.texts: set[str] = set()
        self.errors: list[Exception] = []


@contextlib.contextmanager
def uploading(server: Server, pcm: bytes, count: int) -> Iterator[Uploads]:
    """So many clients, each of which sends the same speech (PCM16, 16 kHz) again as soon as it has been answered."""
    uploads, over, recording = Uploads(), threading.Event(), _wav(pcm)

    def send() -> None:
        while not over.is_set() and not uploads.errors:
            try:
                text = server.transcribe(recording)
            except Exception as error:
                uploads.errors.append(error)
            else:
                uploads.texts.add(text)
                uploads.seconds += len(pcm) / 2 / RATE

    threads = [threading.Thread(target=send, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield uploads
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _wav(pcm: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(pcm)
    return file.getvalue()
