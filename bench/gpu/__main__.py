"""Checks and measures everything that a card can do, in one command; needs torch, numpy and sentencepiece, no network.

    python -m bench.gpu [--device cuda] [--layers 24] [--width 1024] [--minutes 9] [--only SECTION ...] [--report FILE]

Random weights of the real sizes: parakeet-tdt-0.6b (8,192 tokens) for clips, nemotron-speech-streaming-en-0.6b for
streams, the bias of the blank set so that about three tokens a second come out. First it is checked that the device
gives what the CPU gives in float32, then each form of each thing is measured beside the others and the fastest is
named. What fails says so and does not end the rest. `--device cpu --layers 1 --width 128` shows that the bench works.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.audio import speech
from bench.gpu import agreement, clips, live, peers, streams
from bench.gpu.device import ceilings, name_of
from bench.gpu.told import Told
from bench.random_model import build, calibrate, random_live_checkpoint
from bench.report import replace_between
from conure.audio.features import LogMel
from conure.engine.torch_runner import TorchRunner
from conure.models import conure_file
from conure.models.network import Network

VOCABULARY = 8192


def main() -> None:
    options = _parser().parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no card here; --device cpu --layers 1 --width 128 shows that the bench works")
    until = time.monotonic() + 60 * options.minutes
    bench = Bench(device, options.layers, options.width)
    parts = [name_of(device)]
    for name, section in bench.sections().items():
        if options.only and name not in options.only:
            continue
        if time.monotonic() > until:
            parts.append(f"No time was left for {name}.")
            continue
        print(f"{name} ...", flush=True)
        begin = time.monotonic()
        try:
            parts.append(str(section()))
        except Exception as error:  # whatever it is, the rest is to be measured
            parts.append(f"**{name}** failed: {type(error).__name__}: {error}")
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    text = "\n\n".join(parts)
    print("\n" + text)
    if options.report:
        replace_between(options.report, "card", text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no further section is begun")
    parser.add_argument("--only", nargs="*", help="some sections alone")
    parser.add_argument("--report", type=Path, help="a page to put the tables into, between markers")
    return parser


class Bench:
    """Networks are made once, where the first section needs them."""

    def __init__(self, device: torch.device, layers: int, width: int) -> None:
        self.device, self.layers, self.width = device, layers, width
        self.live = random_live_checkpoint(layers, width)
        self._runner: TorchRunner | None = None
        self._state: dict[str, torch.Tensor] = {}

    def sections(self) -> dict[str, Callable[[], Told]]:
        """The most important first: time may run out."""
        device, goals = self.device, streams.GOALS if self.device.type == "cuda" else ((80, 16), (1120, 8))
        return {
            "ceilings": self._ceilings,
            "agreement": lambda: agreement.encoders(random_live_checkpoint(min(self.layers, 4), self.width), device),
            "words": lambda: agreement.words(device),
            "variants": lambda: streams.variants(self.live, device),
            "held": lambda: streams.held(self.live, device, goals),
            "clips": lambda: clips.by_batch(self.runner, device),
            "decoders": lambda: clips.decoders(self.runner, device, conditional=False),
            "forms": lambda: clips.forms(self.network, device),
            "paced": lambda: live.paced(self.live, device, goals),
            "peers": lambda: peers.transformers_parakeet(self.runner.network.config, device),
            "first": self._first,
            "long": lambda: clips.long_clips(self.runner, device),
            "tokens": self._tokens,
            "host": lambda: live.host(random_live_checkpoint(1, 64)),
            "conditional": self._conditional,
        }

    @property
    def runner(self) -> TorchRunner:
        if self._runner is None:
            network = self.network()
            self._runner = TorchRunner(network, LogMel(network.config.mel), self.device)
        return self._runner

    def network(self) -> Network:
        """Calibrated once, on the device: on a CPU that takes a minute."""
        network = build(VOCABULARY, self.layers, self.width)
        if not self._state:
            network.to(self.device)
            calibrate(network)
            self._state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        network.load_state_dict(self._state)
        return network

    def _ceilings(self) -> Told:
        told, found = Told("Ceilings, measured", ("bytes a second, read and written", "bf16 operations a second")), None
        with told.failures("ceilings"):
            found = ceilings(self.device)
            told.row(f"{found.copied / 1e12:.2f}e12", f"{found.products / 1e12:.1f}e12")
        return told

    def _tokens(self) -> Told:
        told = Told("Tokens a second of speech")
        rate = streams.tokens_a_second(streams.live_runner(self.live, self.device), 11.0, speech(12.0))
        told.note(f"streams: {rate:.1f}; those of clips are in their table")
        return told

    def _first(self) -> Told:
        told = Told("From the start of a process", ("seconds", "until"))
        with tempfile.TemporaryDirectory() as folder, told.failures("the process"):
            conure_file.save(self.live, Path(folder) / "live")
            for line in _child("bench.gpu.first", f"{folder}/live", str(self.device), str(time.time())).splitlines():
                told.row(*line.split("\t"))
        return told

    def _conditional(self) -> Told:
        """In a process of its own: what fails while it is recorded may leave a card's context useless."""
        told = Told("Decoders that repeat themselves")
        if self.device.type != "cuda":
            told.note("no card")
            return told
        with told.failures("conditional nodes"):
            told.note(_child("bench.gpu.conditional", str(self.layers), str(self.width)))
        return told


def _child(module: str, *arguments: str) -> str:
    found = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(
            found.stderr.strip().splitlines()[-1] if found.stderr.strip() else f"exit {found.returncode}"
        )
    return found.stdout


if __name__ == "__main__":
    main()
