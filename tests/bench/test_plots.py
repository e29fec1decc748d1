"""Figures have a sensible size and visible lines; their CSV files contain the measured values."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conure.bench import plots
from conure.bench.batch_bench import Batch
from conure.bench.capacity_search import CapacityFindings, OptionsSearch
from conure.bench.csv_tables import lag_rows, memory_rows
from conure.bench.plots import BLUE, ORANGE, draw_figures, ensure_can_draw
from conure.bench.statistics import Spread
from conure.bench.trial import Trial
from conure.errors import BadOption, MissingBackend
from tests.bench.test_trial import HELD

image = pytest.importorskip("matplotlib.image")

IDLE = {"server": 100 * 2**20, "engine": 400 * 2**20}


def trial(streams: int, p99: float) -> Trial:
    lag = Spread(100, p99 / 2, p99 * 0.9, p99, p99)
    sizes = {"server": (100 + streams) * 2**20, "engine": (400 + 2 * streams) * 2**20}
    return replace(HELD, streams=streams, ends={"finished": streams}, lag=lag, memory=sizes)


REFUSED = replace(trial(200, 0.1), lag=None, ends={"cancelled": 199, "busy": 1})
TRIALS = [trial(10, 0.05), trial(80, 0.9), REFUSED, trial(40, 0.1), trial(60, 0.2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    batches = [Batch(1, 10.0, 0.5), Batch(8, 10.0, 2.0), Batch(1, 1.0, 0.1), Batch(8, 1.0, 0.4)]
    findings = CapacityFindings(searches=[OptionsSearch({}, ("a", "b"), IDLE, TRIALS)], batches=batches)
    paths = draw_figures(folder, findings, "a processor, 2 cores", "b")
    assert sorted(paths) == sorted(folder.iterdir())
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def has(picture: np.ndarray, color: str) -> bool:
    expected = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return bool((abs(picture[..., :3] - expected) < 0.01).all(-1).sum() > 50)


@pytest.mark.parametrize(
    ("name", "colors"),
    [("lag", (BLUE, ORANGE, "#555555")), ("memory", (BLUE, ORANGE)), ("batches", (BLUE,)), ("lengths", (BLUE, ORANGE))],
)
def test_a_figure_has_its_lines_on_white(folder: Path, name: str, colors: tuple[str, ...]) -> None:
    picture = image.imread(folder / f"{name}.png")
    height, width = picture.shape[:2]
    assert (600 <= height <= 1200, 900 <= width <= 2000) == (True, True)
    assert (picture[..., :3] > 0.99).all(-1).mean() > 0.6
    assert [has(picture, color) for color in colors] == [True] * len(colors)


def test_rows_of_lag_are_in_order_without_rejected_trials(folder: Path) -> None:
    rows = read(folder / "lag.csv")
    assert [row["streams"] for row in rows] == ["10", "40", "60", "80"]
    assert [row["lag_p99_ms"] for row in rows] == ["50.0", "100.0", "200.0", "900.0"]
    assert [row["held"] for row in rows] == ["1", "1", "1", "0"]
    assert {row["promise_ms"] for row in rows} == {"260.0"}


def test_memory_after_a_larger_load_is_left_out(folder: Path) -> None:
    assert read(folder / "memory.csv") == [
        {"streams": "0", "server_mb": "100.0", "engine_mb": "400.0"},
        {"streams": "10", "server_mb": "110.0", "engine_mb": "420.0"},
        {"streams": "80", "server_mb": "180.0", "engine_mb": "560.0"},
    ]
    assert memory_rows(IDLE, []) == [{"streams": 0, "server_mb": 100.0, "engine_mb": 400.0}]
    assert lag_rows([REFUSED]) == []


def test_throughput_by_batch_and_by_length(folder: Path) -> None:
    rows = read(folder / "batches.csv")
    assert [(row["clips"], row["hours_an_hour"]) for row in rows] == [("1", "20.0"), ("8", "40.0")]
    rows = read(folder / "lengths.csv")
    assert [(row["clips"], row["length_s"]) for row in rows] == [
        ("1", "1.0"),
        ("1", "10.0"),
        ("8", "1.0"),
        ("8", "10.0"),
    ]


def test_no_figure_without_measurements(tmp_path: Path) -> None:
    assert draw_figures(tmp_path, CapacityFindings(), "a processor", "b") == []
    assert list(tmp_path.iterdir()) == []


def test_requirements_of_figures_are_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_can_draw(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(BadOption, match="--plot is"):
        ensure_can_draw(tmp_path / "file")
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(MissingBackend) as caught:
        ensure_can_draw(tmp_path)
    assert caught.value.hint == "pip install 'conure[plot]'"
