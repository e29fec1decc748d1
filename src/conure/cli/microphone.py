"""Live samples of the microphone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conure.constants import SAMPLE_RATE
from conure.errors import MissingBackend

__all__ = ["microphone"]

BLOCK = 320
MAX_QUEUED_BLOCKS = 500
"""Blocks of 20 ms; more raises OverflowError."""


async def microphone(device: str | None = None) -> AsyncGenerator[NDArray[np.float32]]:
    """Blocks [n] of 20 ms from the system's microphone, or one given by name or number, until cancelled.

    Raises MissingBackend without a usable microphone, and OverflowError when blocks were not read for 10 s.
    """
    sounddevice = _sounddevice()
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[NDArray[np.float32]] = asyncio.Queue()

    def enqueue(data: Any, frames: int, at: Any, status: Any) -> None:
        loop.call_soon_threadsafe(blocks.put_nowait, np.array(data[:, 0]))

    try:
        stream = sounddevice.InputStream(SAMPLE_RATE, BLOCK, device, 1, "float32", callback=enqueue)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise MissingBackend(f"no microphone: {error}", "connect one, or use --file") from error
    with stream:
        while True:
            if blocks.qsize() > MAX_QUEUED_BLOCKS:
                raise OverflowError("audio of the microphone was not read for 10 s")
            yield await blocks.get()


def _sounddevice() -> Any:
    try:
        import sounddevice  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415  an extra
    except ImportError as error:
        raise MissingBackend("the microphone needs sounddevice", "pip install 'conure[mic]'") from error
    except OSError as error:
        raise MissingBackend("sounddevice cannot find PortAudio", "apt-get install libportaudio2") from error
    return sounddevice
