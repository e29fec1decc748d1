"""`conure` with a bug: audio cannot be accepted."""

from typing import Any

from conure.cli.main import run
from conure.service.live_service import LiveStream


async def feed(*_: Any) -> None:
    raise ZeroDivisionError("a mistake of ours")


if __name__ == "__main__":
    LiveStream.push_audio = feed  # type: ignore[method-assign]
    LiveStream.push_audio_now = lambda *_: False  # type: ignore[method-assign]
    run()
