"""Metrics of several processes are summed."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from conure import metrics
from conure.metrics import Family

BUSY = {"reason": "busy"}


def counted(value: float, since: float) -> list[Family]:
    return [
        Family(
            "conure_refused",
            "counter",
            "What was not accepted.",
            [
                ("conure_refused_total", BUSY, value),
                ("conure_refused_created", BUSY, since),
            ],
        ),
        Family("conure_streams", "gauge", "Open.", [("conure_streams", {}, value)]),
    ]


def values(families: list[Family]) -> dict[str, float]:
    text = metrics.render(families).decode()
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_sum() -> None:
    other = [Family("conure_refused", "counter", "What was not accepted.", [("conure_refused_total", {}, 5.0)])]
    found = values(metrics.sum_families([counted(2, 200.0), counted(3, 100.0), other]))
    assert found["conure_refused_totalbusy"] == 5
    assert found["conure_refused_total"] == 5
    assert found["conure_streams"] == 5
    assert found["conure_refused_createdbusy"] == 100


def test_of_a_process_that_has_gone_the_counts_stay() -> None:
    found = values(metrics.sum_families([metrics.counters(counted(2, 1.0)), counted(3, 1.0)]))
    assert found["conure_refused_totalbusy"] == 5
    assert found["conure_streams"] == 3


def test_rendered_metrics_equal_the_measured_ones() -> None:
    once = metrics.collect()
    assert metrics.render(metrics.sum_families([once])) == metrics.render(once)
    assert {family.name for family in once} >= {"conure_step_seconds", "conure_streams"}
