"""Figures of a capacity search as PNG, each with its data as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from conure.bench.batch_bench import BATCH_CLIPS, CLIP_SECONDS
from conure.bench.capacity_search import CapacityFindings
from conure.bench.csv_tables import Row, batch_rows, lag_rows, length_rows, memory_rows, write_rows
from conure.errors import BadOption, MissingBackend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_figures", "ensure_can_draw"]

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Okabe and Ito's palette, which is safe for colour-blind readers."""
GREY = "#555555"
LEGEND = {"frameon": True, "framealpha": 1.0, "edgecolor": "none"}
SIZE, DPI = (7.2, 4.4), 150
"""Inches; dots per inch."""


def ensure_can_draw(folder: Path) -> None:
    """Raises MissingBackend without matplotlib, and BadOption if the folder is not writable."""
    if find_spec("matplotlib") is None:
        raise MissingBackend("figures need matplotlib", "pip install 'conure[plot]'")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOption(f"--plot is {str(folder)!r}: {error.strerror}", "use a writable folder") from None


def draw_figures(folder: Path, findings: CapacityFindings, machine: str, clips: str) -> list[Path]:
    """Writes a figure and its data for each measurement; returns their paths. `clips` names the model of batches."""
    best = findings.best
    figures: list[tuple[str, list[Row], Callable[[Axes, list[Row]], None], str]] = []
    if best is not None:
        live = best.models[0]
        chunk = f"{live}, chunks of {best.trials[0].latency_ms} ms"
        figures.append(("lag", lag_rows(best.trials), _lag, f"Lag of live streams: {chunk}"))
        figures.append(("memory", memory_rows(best.idle, best.trials), _memory, f"Memory of a server: {chunk}"))
    figures.append(
        ("batches", batch_rows(findings.batches), _batches, f"Clips of {CLIP_SECONDS:g} s in a batch: {clips}")
    )
    figures.append(("lengths", length_rows(findings.batches), _lengths, f"Clips of different lengths: {clips}"))
    paths = []
    for name, rows, plot, title in figures:
        if rows:
            write_rows(folder / f"{name}.csv", rows)
            _save(folder / f"{name}.png", rows, plot, title, machine)
            paths += [folder / f"{name}.png", folder / f"{name}.csv"]
    return paths


def _save(path: Path, rows: list[Row], plot: Callable[[Axes, list[Row]], None], title: str, machine: str) -> None:
    figure, axes = _blank()
    plot(axes, rows)
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=26)
    axes.text(0, 1.03, machine, transform=axes.transAxes, fontsize=9.5, color=GREY)
    figure.savefig(path)


def _blank() -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _lag(axes: Axes, rows: list[Row]) -> None:
    streams, promise = _column(rows, "streams"), float(rows[0]["promise_ms"])
    axes.plot(streams, _column(rows, "lag_p99_ms"), color=ORANGE, marker="o", label="p99")
    axes.plot(streams, _column(rows, "lag_p50_ms"), color=BLUE, marker="s", label="p50")
    axes.axhline(promise, color=GREY, linestyle="--", linewidth=1.2)
    axes.annotate(f"target {promise:.0f} ms", (0, promise), (4, 4), textcoords="offset points", color=GREY)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(left=0)
    axes.set(xlabel="live streams", ylabel="lag of partials, ms")
    axes.legend(**LEGEND)


def _memory(axes: Axes, rows: list[Row]) -> None:
    names = [name for name in rows[0] if name != "streams"]
    for name, color, marker in zip(names, _colors(len(names)), "osD^v" * len(names), strict=False):
        axes.plot(_column(rows, "streams"), _column(rows, name), color=color, marker=marker, label=name[: -len("_mb")])
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set(xlabel="live streams", ylabel="resident memory, MB")
    axes.legend(**LEGEND)


def _batches(axes: Axes, rows: list[Row]) -> None:
    axes.plot(_column(rows, "clips"), _column(rows, "hours_an_hour"), color=BLUE, marker="o")
    axes.set_xscale("log", base=2)
    axes.set_xticks(_column(rows, "clips"))
    axes.xaxis.set_major_formatter("{x:g}")
    _throughput(axes, "clips in a batch")


def _lengths(axes: Axes, rows: list[Row]) -> None:
    for clips, color, marker in ((1, BLUE, "o"), (BATCH_CLIPS, ORANGE, "s")):
        chosen = [row for row in rows if row["clips"] == clips]
        label = "one clip" if clips == 1 else f"batch of {clips}"
        axes.plot(
            _column(chosen, "length_s"), _column(chosen, "hours_an_hour"), color=color, marker=marker, label=label
        )
    _throughput(axes, "clip length, s")
    axes.legend(**LEGEND, loc="lower right")


def _throughput(axes: Axes, x: str) -> None:
    axes.set_ylim(bottom=0)
    axes.set(xlabel=x, ylabel="throughput, x real time (RTFx)")


def _column(rows: Sequence[Row], name: str) -> list[float]:
    """Values of a column; NaN where a row has none."""
    return [float(row.get(name, "nan")) for row in rows]


def _colors(count: int) -> list[str]:
    return ([BLUE, ORANGE, GREEN, PURPLE] * count)[:count]
