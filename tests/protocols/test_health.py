"""Health, readiness, status and metrics."""

from __future__ import annotations

import re
import socket

from conure import metrics
from tests.protocols.live_clients import converse, pcm16, pieces, socket_of
from tests.protocols.servers import PATIENCE, ROOT, Server, demo, wait_for


def test_health_and_the_status_port_agree(server: Server) -> None:
    message, health = server.told(), server.health()
    assert message.pop("type") == "status"
    assert message.pop("connected_streams") == health["streams"]
    assert message.keys() == health.keys()
    assert (health["status"], health["ready"]) == ("ready", True)
    live = {model["name"]: model["streams"] for model in health["models"] if model["live"]}
    assert live.keys() == {"small", "tiny"}
    assert all(latencies.keys() >= {"80", "160", "560"} for latencies in live.values())
    assert [model["name"] for model in health["models"] if model["clips"]] == ["tiny"]


def test_ready_and_metrics(server: Server) -> None:
    assert server.get("/ready") == (200, b'{"ready":true}')
    wait_for(lambda: server.metric("conure_streams") == server.health()["streams"] == 0)
    assert 'conure_capacity_streams{latency_ms="160",model="small"}' in server.get("/metrics")[1].decode()


def test_every_metric_is_documented() -> None:
    names = {
        line.split()[2] for line in metrics.render(metrics.collect()).decode().splitlines() if line.startswith("# TYPE")
    }
    documented = re.findall(r"^\| `(conure_\w+)` \|", (ROOT / "docs" / "server.md").read_text(), re.MULTILINE)
    assert set(documented) == {name for name in names if not name.endswith("_created")}


def test_stages_of_steps_are_counted(server: Server) -> None:
    with socket_of(server) as client:
        client.say({"type": "config", "model": "small"})
        converse(client, [*pieces(pcm16(demo())), {"type": "close"}])
    for stage in ("features", "encoder", "decoding", "listening"):
        assert server.metric(f'conure_stage_seconds_total{{model="small",stage="{stage}"}}') > 0


def test_status_port_ignores_input(server: Server) -> None:
    with socket.create_connection((server.host, server.status), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
        assert connection.makefile("rb").readline().startswith(b'{"type":"status"')
