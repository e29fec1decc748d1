"""`conure` with a mistake of ours in it: audio cannot be taken."""

from typing import Any

from conure.cli.main import run
from conure.service.live_service import LiveStream


async def feed(*_: Any) -> None:
    raise ZeroDivisionError("a mistake of ours")


if __name__ == "__main__":
    LiveStream.feed = feed  # type: ignore[method-assign]
    LiveStream.take = lambda *_: False  # type: ignore[method-assign]
    run()
