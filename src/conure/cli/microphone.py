"""Samples of a microphone, as they are spoken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conure.errors import MissingBackend

__all__ = ["microphone"]

RATE = 16_000
BLOCK = 320
MOST_WAITING = 500
"""Blocks of 20 ms; a listener that is further behind is told."""


async def microphone(device: str | None = None) -> AsyncGenerator[NDArray[np.float32]]:
    """Blocks [n] of 20 ms from the system's microphone, or that of a name or number, until cancelled.

    Raises MissingBackend where there is no way to it, and OverflowError where nobody listened for 10 s.
    """
    sounddevice = _sounddevice()
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[NDArray[np.float32]] = asyncio.Queue()

    def take(data: Any, frames: int, at: Any, status: Any) -> None:
        loop.call_soon_threadsafe(blocks.put_nowait, np.array(data[:, 0]))

    try:
        stream = sounddevice.InputStream(RATE, BLOCK, device, 1, "float32", callback=take)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise MissingBackend(f"no microphone: {error}", "connect one, or use --file") from error
    with stream:
        while True:
            if blocks.qsize() > MOST_WAITING:
                raise OverflowError("nobody listened to the microphone for 10 s")
            yield await blocks.get()


def _sounddevice() -> Any:
    try:
        import sounddevice  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415  an extra
    except ImportError as error:
        raise MissingBackend("the microphone needs sounddevice", "pip install 'conure[mic]'") from error
    except OSError as error:
        raise MissingBackend("sounddevice finds no PortAudio", "apt-get install libportaudio2") from error
    return sounddevice
