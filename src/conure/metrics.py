"""Everything that is measured while serving, for Prometheus. A metric that is not in this list does not exist."""

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
    "DOOR_RESTARTS",
    "DOORS_SILENT",
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
    "counts",
    "render",
    "total",
]

REGISTRY = CollectorRegistry()
SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.5, 5, 10, 20)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

STREAMS = Gauge("conure_streams", "Live streams that are open.", registry=REGISTRY)
CAPACITY = Gauge(
    "conure_capacity_streams",
    "Streams of one kind that this machine was measured to hold.",
    ["model", "latency_ms"],
    registry=REGISTRY,
)
STREAMS_ENDED = Counter("conure_streams_ended", "Live streams that ended, by how.", ["end"], registry=REGISTRY)
REFUSED = Counter("conure_refused", "What was not accepted, by reason.", ["reason"], registry=REGISTRY)
AUDIO_SECONDS = Counter("conure_audio_seconds", "Audio received, live or in files.", ["kind"], registry=REGISTRY)
BACKLOG_BYTES = Gauge(
    "conure_backlog_bytes", "Audio in temporary files, which came faster than it is heard.", registry=REGISTRY
)
STEP_SECONDS = Histogram(
    "conure_turn_seconds", "What one turn of the engine takes.", ["model", "stage"], buckets=SECONDS, registry=REGISTRY
)
STAGE_SECONDS = Counter(
    "conure_stage_seconds", "What the parts of live turns take, together.", ["model", "stage"], registry=REGISTRY
)
BATCH_ROWS = Histogram("conure_batch_rows", "Streams that share a turn.", ["model"], buckets=ROWS, registry=REGISTRY)
LAG_SECONDS = Histogram("conure_lag_seconds", "How late live audio is worked in.", buckets=SECONDS, registry=REGISTRY)
FIRST_PARTIAL_SECONDS = Histogram(
    "conure_first_partial_seconds", "From the start of speech to the first words.", buckets=SECONDS, registry=REGISTRY
)
FINAL_SECONDS = Histogram(
    "conure_final_seconds", "From a client's finalize or close to its answer.", buckets=SECONDS, registry=REGISTRY
)
CLIPS_WAITING = Gauge("conure_clips_waiting", "Pieces of files that wait for the engine.", registry=REGISTRY)
ENGINE_RESTARTS = Gauge("conure_engine_restarts", "Times that the engine was started again.", registry=REGISTRY)
DOOR_RESTARTS = Counter(
    "conure_door_restarts",
    "Times that a process with connections was started again, by what became of the one before.",
    ["why"],
    registry=REGISTRY,
)
DOORS_SILENT = Gauge(
    "conure_doors_silent", "Processes with connections that do not answer the first process now.", registry=REGISTRY
)

BACKGROUND_FAILURES = Counter(
    "conure_background_failures", "Background tasks that ended unexpectedly, by name.", ["task"], registry=REGISTRY
)
CONNECTIONS = Gauge(
    "conure_connections", "Open connections, by whether they have shown a key.", ["identified"], registry=REGISTRY
)
CONNECTIONS_ENDED = Counter(
    "conure_connections_ended",
    "Connections that the server ended, by port and why.",
    ["port", "why"],
    registry=REGISTRY,
)


class Family(Struct):
    """A metric with all its values, as it may be sent to another process."""

    name: str
    kind: str
    help: str
    values: list[tuple[str, dict[str, str], float]]
    """Name of the sample, labels, value."""


def collect() -> list[Family]:
    """What this process has measured."""
    return [
        Family(found.name, found.type, found.documentation, [(s.name, s.labels, s.value) for s in found.samples])
        for found in REGISTRY.collect()
    ]


def total(parts: Iterable[list[Family]]) -> list[Family]:
    """The sum of what several processes have measured; since when they have is the first of all."""
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


def counts(families: list[Family]) -> list[Family]:
    """Those that only grow: they stay true when the process that counted has gone."""
    return [family for family in families if family.kind != "gauge"]


def render(families: list[Family]) -> bytes:
    """In the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.help, family.kind)
            for sample, labels, value in family.values:
                metric.add_sample(sample, labels, value)
            yield metric
