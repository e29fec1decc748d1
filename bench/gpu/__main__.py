"""Checks and benchmarks everything that runs on a GPU, in one command and nine minutes.

    python -m bench.gpu [--device cuda] [--layers 24] [--width 1024] [--minutes 9] [--only SECTION ...] [--report FILE]

From the root of the repository, with torch, triton, numpy, sentencepiece, tokenizers, safetensors, huggingface_hub,
filelock, PyYAML and psutil. It needs no installation of Conure, no compiler and no network. The sections "paced" and
"host" need msgspec and onnx, "peers" needs transformers; without them they are skipped. For a machine without a
network, download a wheel of msgspec elsewhere:

    python -m pip download msgspec --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64
    python -m pip install --no-index --target wheels msgspec-*.whl; export PYTHONPATH=wheels

The models have random weights and real sizes: parakeet-tdt-0.6b (8,192 tokens) for clips and
nemotron-speech-streaming-en-0.6b for streams, with the blank's bias set to give about three tokens per second. First,
results of the device are compared with those of the CPU in float32. Then each implementation is measured and compared
with the others and with its lower bound on an H200. A section that fails does not stop the others.
`--device cpu --layers 1 --width 128` tests the benchmark itself.
"""

from __future__ import annotations

import argparse
import gc
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.gpu import agreement, clips, live, peers, streams
from bench.gpu.device import ceilings, name_of
from bench.gpu.networks import Networks
from bench.gpu.parts import parts
from bench.gpu.result_table import ResultTable
from bench.gpu.stream_output import tokens_per_second
from bench.operations import BYTE_RATE, HALF_RATE
from bench.random_model import random_live_checkpoint
from bench.report import replace_between
from conure.models import conure_file

HOST_CASES = ((80, 2000), (320, 1000), (1120, 256))
"""Chunk in milliseconds, number of streams."""


def main() -> None:
    options = _parser().parse_args()
    logging.basicConfig(format="%(message)s")
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device; --device cpu --layers 1 --width 128 tests the benchmark itself")
    deadline = time.monotonic() + 60 * options.minutes
    found = [name_of(device)]
    for section in _sections(Networks(device, options.layers, options.width)):
        if options.only and section.name not in options.only:
            continue
        if device.type == "cuda" and time.monotonic() + section.seconds > deadline:
            found.append(f"Skipped {section.name}, which takes about {section.seconds} s, for lack of time.")
            continue
        found.append(_run(section))
        _free_memory(device)
        if options.report:
            replace_between(options.report, "card", "\n\n".join(found))
    print("\n" + "\n\n".join(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--minutes", type=float, default=9.0, help="sections that would exceed this time are skipped")
    parser.add_argument("--only", nargs="*", help="run only these sections")
    parser.add_argument("--report", type=Path, help="page to write the tables to, between markers")
    return parser


@dataclass(frozen=True)
class Section:
    name: str
    seconds: int
    """Approximate duration on an H200."""
    measure: Callable[[], ResultTable]


def _sections(networks: Networks) -> tuple[Section, ...]:
    """Most important first, as time may run out."""
    device, width = networks.device, networks.width
    goals = streams.GOALS if device.type == "cuda" else streams.SMALL_GOALS
    small = random_live_checkpoint(min(networks.layers, 2), width)
    return (
        Section("ceilings", 5, lambda: _ceilings(device)),
        Section("agreement", 30, lambda: agreement.encoders(small, device)),
        Section("parts", 10, lambda: parts(device)),
        Section("words", 15, lambda: agreement.words(device)),
        Section("held", 40, lambda: streams.held(networks.live, device, goals)),
        Section("variants", 50, lambda: streams.variants(networks.live, device)),
        Section("clips", 60, lambda: clips.by_batch(networks.runner, device)),
        Section("paced", 65, lambda: live.paced(networks.live, device, goals)),
        Section("decoders", 40, lambda: clips.decoders(networks.runner, device)),
        Section("forms", 30, lambda: clips.forms(networks.network, device)),
        Section("peers", 40, lambda: peers.transformers_parakeet(networks.runner.network.config, device)),
        Section("first", 40, lambda: _first(networks)),
        Section("long", 30, lambda: clips.long_clips(networks.runner, device)),
        Section("tokens", 10, lambda: tokens_per_second(networks.live, device)),
        Section("host", 10, lambda: live.host(random_live_checkpoint(1, 64, rights=streams.RIGHTS), HOST_CASES)),
        Section("compiled", 60, lambda: clips.compiled_forms(networks.network, device)),
        Section("conditional", 60, lambda: _conditional(networks)),
    )


def _run(section: Section) -> str:
    print(f"{section.name} ...", flush=True)
    begin = time.monotonic()
    try:
        table = section.measure()
        text = f"{table}\n\n**{section.name}** failed in part." if table.failed else str(table)
    except Exception as error:  # other sections go on
        text = f"**{section.name}** failed: {type(error).__name__}: {error}"
    print(f"{section.name}: {time.monotonic() - begin:.0f} s", flush=True)
    return text


def _free_memory(device: torch.device) -> None:
    """Frees memory of a finished section."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _ceilings(device: torch.device) -> ResultTable:
    columns = ("", "measured", "assumed for lower bounds")
    table = ResultTable("Ceilings", columns)
    with table.record_failures("ceilings"):
        found = ceilings(device)
        table.add_row("bytes per second, read and written", f"{found.copied:.2e}", f"{BYTE_RATE:.2e}")
        table.add_row("bfloat16 operations per second", f"{found.products:.2e}", f"{HALF_RATE:.2e}")
    return table


def _first(networks: Networks) -> ResultTable:
    table = ResultTable("From the start of a process", ("seconds", "until"))
    with tempfile.TemporaryDirectory() as folder, table.record_failures("the process"):
        tensors = {name: tensor.cpu() for name, tensor in networks.live.tensors.items()}
        conure_file.save(replace(networks.live, tensors=tensors), Path(folder) / "live")
        arguments = f"{folder}/live", str(networks.device), str(time.time())
        for line in _child("bench.gpu.cold_start", *arguments).splitlines():
            table.add_row(*line.split("\t"))
        table.add_note("Kernels were compiled earlier, by another process.")
    return table


def _conditional(networks: Networks) -> ResultTable:
    """Runs in a separate process, because a failed graph capture can break the CUDA context."""
    table = ResultTable("Decoders with conditional graph nodes")
    if networks.device.type != "cuda":
        table.add_note("Not measured: no GPU.")
    elif not hasattr(torch.cuda.CUDAGraph, "begin_capture_to_if_node"):
        table.add_note(f"Not measured: torch {torch.__version__} has no conditional nodes.")
    else:
        with table.record_failures("conditional nodes"):
            table.add_note(_child("bench.gpu.conditional", str(networks.layers), str(networks.width)))
    return table


def _child(module: str, *arguments: str) -> str:
    found = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if found.returncode:
        lines = found.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit {found.returncode}")
    return found.stdout


if __name__ == "__main__":
    main()
