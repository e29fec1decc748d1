from dataclasses import replace

import pytest

from conure.bench.report import as_dict, best_of, facts, line, spreads
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
        ({"lag": SLOW}, "p99 of the lag is 270 ms, more than 260 ms"),
        ({"lag": SLOW, "promise": 0.27}, None),
        ({"lag": SLOW, "by_utterances": True}, None),
        ({"told_lag": SLOW, "by_utterances": True}, "p99 of the lag is 270 ms, more than 260 ms"),
        ({"lag": None}, "no word was heard"),
        ({"different": 1}, "1 were heard otherwise than alone"),
        ({"ends": {"finished": 3, "busy: no room": 1}}, "1 were not finished: busy: no room"),
        ({"ends": {"cancelled": 3, "busy: no room": 1}}, "1 were not finished: busy: no room"),
    ],
)
def test_what_counts_as_held(change: dict[str, object], fault: str | None) -> None:
    assert replace(HELD, **change).fault == fault


def test_the_largest_that_was_held_is_told() -> None:
    trials = [
        HELD,
        replace(HELD, streams=8, ends={"finished": 8}),
        replace(HELD, streams=16, ends={"finished": 16}, lag=SLOW),
    ]
    assert best_of(trials).streams == 8
    assert best_of(trials[2:]).streams == 16
    told = as_dict(trials, price=2.0)
    assert (told["streams"], told["dollars_per_stream_hour"]) == (8, 0.25)
    assert [trial["fault"] for trial in told["trials"]][:2] == [None, None]
    assert (as_dict(trials[2:], price=2.0)["streams"], as_dict(trials[2:], 2.0)["dollars_per_stream_hour"]) == (0, None)


def test_a_report_for_people() -> None:
    assert line(HELD) == "4 streams: p99 lag 250 ms, all in time"
    assert line(replace(HELD, lag=SLOW)) == "4 streams: p99 of the lag is 270 ms, more than 260 ms"
    assert spreads(HELD)[:2] == [
        ("ms", "p50", "p90", "p99", "most", "of"),
        ("lag of partials", "100", "150", "250", "300", "100"),
    ]
    told = dict(facts(HELD, price=2.0))
    assert told["streams"] == "4 at 160 ms, 10 s each"
    assert told["turns"] == "6.2 a second of 4.0 rows, in 20.0 ms: 12% busy"
    assert told["price"] == "$0.50000 an hour of a stream, where the machine is $2"
    assert "price" not in dict(facts(replace(HELD, lag=SLOW), price=2.0))


def test_processes_of_a_kind_are_told_together() -> None:
    several = replace(HELD, cpu={"server": 0.001, "door 1": 0.01, "door 2": 0.02, "engine": 0.1})
    told = dict(facts(several, None))
    assert told["cpu, door"] == "0.0300 cores a stream"
    assert told["cpu, server"] == "0.0010 cores a stream"
    assert not any("door 1" in name for name in told)
