"""Checks and measures everything that a card can do, in one command and nine minutes.

    python -m bench.gpu [--device cuda] [--layers 24] [--width 1024] [--minutes 9] [--only SECTION ...] [--report FILE]

From the root of the repository, with torch, triton, numpy, sentencepiece, tokenizers, safetensors, huggingface_hub,
filelock, PyYAML and psutil. Conure need not be installed, nothing need be compiled, there need be no network. Where
they are missing, the sections "paced" and "host" want msgspec and onnx, "peers" wants transformers. A wheel of msgspec
can be carried to a machine without a network:

    python -m pip download msgspec --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64
    python -m pip install --no-index --target wheels msgspec-*.whl; export PYTHONPATH=wheels

Random weights of the real sizes: parakeet-tdt-0.6b (8,192 tokens) for clips, nemotron-speech-streaming-en-0.6b for
streams, the bias of the blank set so that about three tokens a second come out. First it is checked that the device
gives what the CPU gives in float32, then each form of each thing is measured beside the others and beside the least
that it takes on an H200, and the fastest is named. What fails says so and does not end the rest.
`--device cpu --layers 1 --width 128` shows that the bench works.
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
from bench.gpu.heard import tokens_a_second
from bench.gpu.networks import Networks
from bench.gpu.parts import parts
from bench.gpu.told import Told
from bench.operations import BYTE_RATE, HALF_RATE
from bench.random_model import random_live_checkpoint
from bench.report import replace_between
from conure.models import conure_file

HOST_CASES = ((80, 2000), (320, 1000), (1120, 256))
"""Milliseconds of a chunk, and streams."""


def main() -> None:
    options = _parser().parse_args()
    logging.basicConfig(format="%(message)s")
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no card here; --device cpu --layers 1 --width 128 shows that the bench works")
    until = time.monotonic() + 60 * options.minutes
    found = [name_of(device)]
    for section in _sections(Networks(device, options.layers, options.width)):
        if options.only and section.name not in options.only:
            continue
        if device.type == "cuda" and time.monotonic() + section.seconds > until:
            found.append(f"No time was left for {section.name}, which takes some {section.seconds} s.")
            continue
        found.append(_run(section))
        _give_back(device)
        if options.report:
            replace_between(options.report, "card", "\n\n".join(found))
    print("\n" + "\n\n".join(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--minutes", type=float, default=9.0, help="no section is begun that would take longer")
    parser.add_argument("--only", nargs="*", help="some sections alone")
    parser.add_argument("--report", type=Path, help="a page to put the tables into, between markers")
    return parser


@dataclass(frozen=True)
class Section:
    name: str
    seconds: int
    """That it takes on an H200, about."""
    measure: Callable[[], Told]


def _sections(networks: Networks) -> tuple[Section, ...]:
    """The most important first: time may run out."""
    device, width = networks.device, networks.width
    goals = streams.GOALS if device.type == "cuda" else streams.SMALL_GOALS
    few = random_live_checkpoint(min(networks.layers, 2), width)
    return (
        Section("ceilings", 5, lambda: _ceilings(device)),
        Section("agreement", 30, lambda: agreement.encoders(few, device)),
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
        Section("tokens", 10, lambda: tokens_a_second(networks.live, device)),
        Section("host", 10, lambda: live.host(random_live_checkpoint(1, 64, rights=streams.RIGHTS), HOST_CASES)),
        Section("compiled", 60, lambda: clips.compiled_forms(networks.network, device)),
        Section("conditional", 60, lambda: _conditional(networks)),
    )


def _run(section: Section) -> str:
    print(f"{section.name} ...", flush=True)
    begin = time.monotonic()
    try:
        told = section.measure()
        text = f"{told}\n\n**{section.name}** failed in part." if told.failed else str(told)
    except Exception as error:  # whatever it is, the rest is to be measured
        text = f"**{section.name}** failed: {type(error).__name__}: {error}"
    print(f"{section.name}: {time.monotonic() - begin:.0f} s", flush=True)
    return text


def _give_back(device: torch.device) -> None:
    """What a section had of the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _ceilings(device: torch.device) -> Told:
    columns = ("", "measured", "as the floors have it")
    told = Told("Ceilings", columns)
    with told.failures("ceilings"):
        found = ceilings(device)
        told.row("bytes a second, read and written", f"{found.copied:.2e}", f"{BYTE_RATE:.2e}")
        told.row("bfloat16 operations a second", f"{found.products:.2e}", f"{HALF_RATE:.2e}")
    return told


def _first(networks: Networks) -> Told:
    told = Told("From the start of a process", ("seconds", "until"))
    with tempfile.TemporaryDirectory() as folder, told.failures("the process"):
        tensors = {name: tensor.cpu() for name, tensor in networks.live.tensors.items()}
        conure_file.save(replace(networks.live, tensors=tensors), Path(folder) / "live")
        arguments = f"{folder}/live", str(networks.device), str(time.time())
        for line in _child("bench.gpu.first", *arguments).splitlines():
            told.row(*line.split("\t"))
        told.note("Kernels were compiled before, by another process.")
    return told


def _conditional(networks: Networks) -> Told:
    """In a process of its own: what fails while it is recorded may leave a card's context useless."""
    told = Told("Decoders that repeat themselves")
    if networks.device.type != "cuda":
        told.note("Not measured: there is no card.")
    elif not hasattr(torch.cuda.CUDAGraph, "begin_capture_to_if_node"):
        told.note(f"Not measured: torch {torch.__version__} has no conditional nodes.")
    else:
        with told.failures("conditional nodes"):
            told.note(_child("bench.gpu.conditional", str(networks.layers), str(networks.width)))
    return told


def _child(module: str, *arguments: str) -> str:
    found = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if found.returncode:
        lines = found.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit {found.returncode}")
    return found.stdout


if __name__ == "__main__":
    main()
