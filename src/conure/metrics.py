"""All metrics of a server, for Prometheus, and functions to combine those of several processes."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

__all__ = [
    "AUDIO_SECONDS",
    "BACKLOG_BYTES",
    "BACKGROUND_FAILURES",
    "BATCH_ROWS",
    "CAPACITY",
    "CLIPS_WAITING",
    "CONNECTIONS",
    "CONNECTIONS_ENDED",
    "SERVER_RESTARTS",
    "SERVERS_SILENT",
    "ENGINE_RESTARTS",
    "FINAL_SECONDS",
    "FIRST_PARTIAL_SECONDS",
    "Family",
    "LAG_SECONDS",
    "REFUSED",
    "STREAMS",
    "STREAMS_ENDED",
    "STAGE_SECONDS",
    "STEP_SECONDS",
    "collect",
    "counters",
    "render",
    "sum_families",
]

REGISTRY = CollectorRegistry()
SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.5, 5, 10, 20)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

STREAMS = Gauge("conure_streams", "Open live streams.", registry=REGISTRY)
CAPACITY = Gauge(
    "conure_capacity_streams",
    "Streams that this machine holds in real time, as calibrated, by model and latency.",
    ["model", "latency_ms"],
    registry=REGISTRY,
)
STREAMS_ENDED = Counter("conure_streams_ended", "Ended live streams, by reason.", ["end"], registry=REGISTRY)
REFUSED = Counter("conure_refused", "Refused requests, by reason.", ["reason"], registry=REGISTRY)
AUDIO_SECONDS = Counter("conure_audio_seconds", "Audio received, live or in files.", ["kind"], registry=REGISTRY)
BACKLOG_BYTES = Gauge(
    "conure_backlog_bytes", "Live audio that waits in temporary files to be processed.", registry=REGISTRY
)
STEP_SECONDS = Histogram(
    "conure_step_seconds", "Duration of one step of the engine.", ["model", "stage"], buckets=SECONDS, registry=REGISTRY
)
STAGE_SECONDS = Counter(
    "conure_stage_seconds", "Total duration of each stage of live steps.", ["model", "stage"], registry=REGISTRY
)
BATCH_ROWS = Histogram("conure_batch_rows", "Streams in one step.", ["model"], buckets=ROWS, registry=REGISTRY)
LAG_SECONDS = Histogram("conure_lag_seconds", "How late live audio is processed.", buckets=SECONDS, registry=REGISTRY)
FIRST_PARTIAL_SECONDS = Histogram(
    "conure_first_partial_seconds",
    "From the start of speech to the first words.",
    buckets=SECONDS,
    registry=REGISTRY,
)
FINAL_SECONDS = Histogram(
    "conure_final_seconds",
    "From a client's finalize or close to its response.",
    buckets=SECONDS,
    registry=REGISTRY,
)
CLIPS_WAITING = Gauge("conure_clips_waiting", "Clips of recordings that wait for the engine.", registry=REGISTRY)
ENGINE_RESTARTS = Gauge("conure_engine_restarts", "Restarts of the engine.", registry=REGISTRY)
SERVER_RESTARTS = Counter(
    "conure_server_process_restarts",
    "Restarts of server processes, by why the previous one ended.",
    ["why"],
    registry=REGISTRY,
)
SERVERS_SILENT = Gauge(
    "conure_server_processes_silent", "Server processes that do not respond to the parent process.", registry=REGISTRY
)

BACKGROUND_FAILURES = Counter(
    "conure_background_failures", "Background tasks that ended unexpectedly, by name.", ["task"], registry=REGISTRY
)
CONNECTIONS = Gauge(
    "conure_connections",
    "Open connections, by whether they have sent a key.",
    ["identified"],
    registry=REGISTRY,
)
CONNECTIONS_ENDED = Counter(
    "conure_connections_ended",
    "Connections that the server closed, by port and reason.",
    ["port", "why"],
    registry=REGISTRY,
)


class Family(Struct):
    """A metric with all its values; can be sent to another process."""

    name: str
    kind: str
    help: str
    values: list[tuple[str, dict[str, str], float]]
    """(name of the sample, labels, value)"""


def collect() -> list[Family]:
    """The metrics of this process."""
    return [
        Family(metric.name, metric.type, metric.documentation, [(s.name, s.labels, s.value) for s in metric.samples])
        for metric in REGISTRY.collect()
    ]


def sum_families(parts: Iterable[list[Family]]) -> list[Family]:
    """Sums the metrics of several processes; creation times are not summed, the earliest is used."""
    families: dict[str, Family] = {}
    sums: dict[str, dict[Any, float]] = {}
    for family in (family for part in parts for family in part):
        families.setdefault(family.name, family)
        values = sums.setdefault(family.name, {})
        for sample, labels, value in family.values:
            key = sample, *sorted(labels.items())
            join = min if sample.endswith("_created") else operator.add
            values[key] = join(values[key], value) if key in values else value
    return [
        Family(
            name, of.kind, of.help, [(sample, dict(labels), value) for (sample, *labels), value in sums[name].items()]
        )
        for name, of in families.items()
    ]


def counters(families: list[Family]) -> list[Family]:
    """Counters and histograms: they stay valid after the process that counted is gone; gauges do not."""
    return [family for family in families if family.kind != "gauge"]


def render(families: list[Family]) -> bytes:
    """The text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_FixedCollector(families))
    return generate_latest(registry)


class _FixedCollector(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.help, family.kind)
            for sample, labels, value in family.values:
                metric.add_sample(sample, labels, value)
            yield metric
