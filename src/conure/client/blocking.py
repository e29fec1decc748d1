"""The client for programs without asyncio: each stream runs in a thread with its own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from conure.client.client import Client
from conure.client.errors import StreamClosed
from conure.client.event_queue import Event
from conure.client.protocol import Ready
from conure.client.recording import Transcript
from conure.client.stream import Stream

__all__ = ["BlockingClient", "BlockingStream"]

T = TypeVar("T")


class BlockingClient:
    """Blocking version of `Client`, with the same parameters."""

    def __init__(self, url: str, **options: Any) -> None:
        self._client = Client(url, **options)

    def stream(self, **options: Any) -> BlockingStream:
        """A live stream; `with` opens it. Parameters as for `Client.stream`."""
        return BlockingStream(self._client, options)

    def transcribe(self, source: str | Path | bytes, **options: Any) -> Transcript:
        """Blocking version of `Client.transcribe`."""
        with _LoopThread() as loop:
            return loop.wait_for(self._client.transcribe(source, **options))


class BlockingStream:
    """Blocking version of `Stream`. One thread may send while another reads."""

    def __init__(self, client: Client, options: dict[str, Any]) -> None:
        self._client = client
        self._options = options
        self._closing = ExitStack()
        self._loop: _LoopThread
        self._stream: Stream

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._loop = stack.enter_context(_LoopThread())
            self._stream = self._client.stream(**self._options)
            self._loop.wait_for(self._stream.__aenter__())
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._closing:
            self._loop.wait_for(self._stream.__aexit__(kind, error, trace))

    @property
    def ready(self) -> Ready:
        """The server's last `ready` message: on open or resume."""
        return self._stream.ready

    def send(self, audio: bytes | bytearray | memoryview | NDArray[Any]) -> None:
        self._loop.wait_for(self._stream.send(audio))

    def finalize(self) -> int:
        return self._loop.wait_for(self._stream.finalize())

    def close(self) -> None:
        self._loop.wait_for(self._stream.close())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self._loop.wait_for(self._next())
        if event is None:
            raise StopIteration
        return event

    async def _next(self) -> Event | None:
        return await anext(self._stream, None)


class _LoopThread:
    """A thread that runs an event loop inside the `with` block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="conure client", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.wait_for(self._loop.shutdown_asyncgens())
        self.wait_for(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs the coroutine in the thread and returns its result. An exception while waiting cancels it."""
        if not self._thread.is_alive():
            work.close()
            raise StreamClosed("the stream's context was exited before its end")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
