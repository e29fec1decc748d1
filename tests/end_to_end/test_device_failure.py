"""The device fails during speech: the engine ends, another one takes over, and no word is missing."""

from __future__ import annotations

from pathlib import Path

from tests.protocols.live_clients import converse, finals, lines, pcm16, pieces, socket_of
from tests.protocols.servers import SAID, demo, started

CONFIG = {"type": "config", "endpointing": {"silence": 1.5}}
DIGITS = pcm16(demo())


def test_streams_go_on_with_the_next_engine(cache: Path) -> None:
    with started("tiny", cache, module="tests.end_to_end.failing_server") as server:
        with lines(server) as first, socket_of(server) as second:
            for client in (first, second):
                for message in [CONFIG, *pieces(DIGITS)]:
                    client.say(message)
            heard = [converse(client, [{"type": "close"}]) for client in (first, second)]
        assert [finals(told) for told in heard] == [SAID, SAID]
        assert [told[-1]["type"] for told in heard] == ["finished", "finished"]
        assert server.health()["engine_restarts"] == 1
        assert server.stop() == 0
        assert "the device failed: CUDA error: an illegal memory access was encountered" in server.errors
        assert "the engine's device failed; starting it again" in server.errors
        assert "Traceback" not in server.errors
