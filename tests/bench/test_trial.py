from dataclasses import replace

import pytest

from conure.bench.report import best_of, spread_table, trial_facts, trial_line, trials_as_dict
from conure.bench.statistics import Spread
from conure.bench.trial import Trial

QUICK = Spread(count=100, p50=0.1, p90=0.15, p99=0.25, most=0.3)
SLOW = replace(QUICK, p99=0.27)
HELD = Trial(
    streams=4,
    latency_ms=160,
    promise=0.26,
    seconds=40.0,
    lag=QUICK,
    told_lag=QUICK,
    first_words=None,
    final=QUICK,
    by_utterances=False,
    late=0.002,
    ends={"finished": 4},
    words=80,
    different=0,
    cpu={"server": 0.01, "engine": 0.1},
    memory={"server": 2**27, "engine": 2**29},
    turns=6.25,
    rows=4.0,
    turn=0.02,
    busy=0.125,
)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"lag": SLOW}, "p99 lag 270 ms exceeds the target of 260 ms"),
        ({"lag": SLOW, "promise": 0.27}, None),
        ({"lag": SLOW, "by_utterances": True}, None),
        ({"told_lag": SLOW, "by_utterances": True}, "p99 lag 270 ms exceeds the target of 260 ms"),
        ({"lag": None}, "no words received"),
        ({"different": 1}, "1 transcripts differ from those of single streams"),
        ({"ends": {"finished": 3, "busy: no room": 1}}, "1 streams failed: busy: no room"),
        ({"ends": {"cancelled": 3, "busy: no room": 1}}, "1 streams failed: busy: no room"),
    ],
)
def test_faults(change: dict[str, object], fault: str | None) -> None:
    assert replace(HELD, **change).fault == fault


def test_the_largest_sustained_trial_is_reported() -> None:
    trials = [
        HELD,
        replace(HELD, streams=8, ends={"finished": 8}),
        replace(HELD, streams=16, ends={"finished": 16}, lag=SLOW),
    ]
    assert best_of(trials).streams == 8
    assert best_of(trials[2:]).streams == 16
    result = trials_as_dict(trials, price=2.0)
    assert (result["streams"], result["dollars_per_stream_hour"]) == (8, 0.25)
    assert [trial["fault"] for trial in result["trials"]][:2] == [None, None]
    assert (
        trials_as_dict(trials[2:], price=2.0)["streams"],
        trials_as_dict(trials[2:], 2.0)["dollars_per_stream_hour"],
    ) == (0, None)


def test_text_reports() -> None:
    assert trial_line(HELD) == "4 streams: p99 lag 250 ms, sustained"
    assert trial_line(replace(HELD, lag=SLOW)) == "4 streams: p99 lag 270 ms exceeds the target of 260 ms"
    assert spread_table(HELD)[:2] == [
        ("ms", "p50", "p90", "p99", "max", "count"),
        ("lag of partials", "100", "150", "250", "300", "100"),
    ]
    result = dict(trial_facts(HELD, price=2.0))
    assert result["streams"] == "4 at 160 ms, 10 s each"
    assert result["steps"] == "6.2/s of 4.0 rows in 20.0 ms, 12% busy"
    assert result["price"] == "$0.50000 per hour of a stream, with the machine at $2 per hour"
    assert "price" not in dict(trial_facts(replace(HELD, lag=SLOW), price=2.0))


def test_processes_of_a_kind_are_summed() -> None:
    changed = replace(HELD, cpu={"server": 0.001, "server process 1": 0.01, "server process 2": 0.02, "engine": 0.1})
    result = dict(trial_facts(changed, None))
    assert result["cpu, server process"] == "0.0300 cores per stream"
    assert result["cpu, server"] == "0.0010 cores per stream"
    assert not any("server process 1" in name for name in result)
