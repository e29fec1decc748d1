"""Train a tiny model: `python -m tools.train.train [--recipe tiny-live] --data FOLDER --out FOLDER --updates N`.

All random numbers depend on the seed and the number of the update. So a resumed run gives the same weights as an
uninterrupted one, and a run may be resumed with more updates. `--processes 2` (the default on a CPU) trains with two
single-threaded processes; the first one evaluates, logs and saves.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as multiprocessing
from torch import nn

from conure.audio.features import LogMel
from conure.models.config import NetworkConfig
from conure.models.network import Network
from tools.train.corpus import SAMPLE_RATE, Clip
from tools.train.evaluate import Evaluation, Recogniser, export
from tools.train.initial import HEAD_START, copy_weights, initialise
from tools.train.objective import Objective, mixture, stage
from tools.train.parallel import SharedAverage, average_gradients
from tools.train.prepare import prepare, tokenizer_words
from tools.train.recipes import RECIPES
from tools.train.strings import Batch, Stage, StringMaker
from tools.train.tokenizer import Tokenizer, train_tokenizer

PEAK_RATE, WARMUP = 1e-3, 60
DECAY = 0.25
"""Share of the run, at its end, in which the rate falls to zero. It is constant before, so the first part of a run
does not depend on its length."""
EMA_DECAY = 0.998
BLOCK = 50
"""Updates with the same random generator; checkpoints are written between blocks."""
CHECKPOINT_EVERY, EVALUATE_EVERY = 10 * BLOCK, 20 * BLOCK


class Average:
    """An exponential moving average of a network's weights and statistics, kept in a second network."""

    def __init__(self, network: Network) -> None:
        self.network = Network(network.config).to(network.device)
        self.network.load_state_dict(network.state_dict())
        self.updates = 0

    @torch.no_grad()
    def update(self, network: Network) -> None:
        self.updates += 1
        decay = min(EMA_DECAY, (1 + self.updates) / (10 + self.updates))
        # the only integers are the batch norms' counters, which are not used
        averages = [value for value in self.network.state_dict().values() if value.is_floating_point()]
        values = [value for value in network.state_dict().values() if value.is_floating_point()]
        torch._foreach_lerp_(averages, values, 1 - decay)


class Trainer:
    """Network, optimiser, average and counters: everything a checkpoint holds."""

    def __init__(
        self,
        config: NetworkConfig,
        device: str = "cpu",
        seed: int = 1,
        rank: int = 0,
        shared: SharedAverage | None = None,
    ) -> None:
        torch.manual_seed(seed)  # the same weights in every process
        self.network = Network(config).to(device)
        initialise(self.network)
        self.mel = LogMel(config.mel).to(device)
        self.average = Average(self.network)
        self.optimiser = torch.optim.AdamW(_groups(self.network), lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)
        self.objective = Objective(self.network, self.mel, device)
        self.rank, self.shared = rank, shared
        self.processes = shared.processes if shared else 1
        self.update = self.head_start = 0
        self.audio_s = self.seconds = 0.0

    def copy_weights(self, tokenizer: Tokenizer, folder: Path) -> None:
        """Copies the weights of another model, and skips the first part of the curriculum."""
        copy_weights(self.network, tokenizer, folder)
        self.average.network.load_state_dict(self.network.state_dict())
        self.head_start = HEAD_START

    @property
    def stage(self) -> Stage:
        return stage(self.update + self.head_start)

    def step(self, batch: Batch, updates: int, rng: np.random.Generator) -> dict[str, float]:
        """One update out of `updates`; returns the losses."""
        self.network.train()
        loss, parts = self.objective(batch, mixture(self.update + self.head_start), self.stage.augment, rng)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.shared, self.rank, list(self.network.parameters()))
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.update, updates)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if bool(norm.isfinite()):
            self.optimiser.step()
            if self.rank == 0:
                self.average.update(self.network)
        self.update += 1
        self.audio_s += self.processes * float(batch.lengths.sum()) / SAMPLE_RATE
        return {**parts, "norm": float(norm)}

    def state(self) -> dict[str, object]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "averaged": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "update": self.update,
            "audio_s": self.audio_s,
            "seconds": self.seconds,
        }

    def restore(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["averaged"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.update, self.audio_s, self.seconds = state["update"], state["audio_s"], state["seconds"]


def _groups(network: Network) -> list[dict]:
    """Weight decay for matrices only."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": 1e-2}, {"params": others, "weight_decay": 0.0}]


def rate(update: int, updates: int) -> float:
    """Linear warm-up, constant, linear decay (Hägele et al., "Scaling laws beyond fixed durations", 2024)."""
    return PEAK_RATE * min(1.0, (update + 1) / WARMUP, (updates - update) / (DECAY * updates))


class Log:
    """Sums of losses between lines, and the lines."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.count = 0

    def add(self, losses: dict[str, float]) -> None:
        self.count += 1
        for name, value in losses.items():
            self.sums[name] += value

    def line(self, trainer: Trainer) -> str:
        losses = " ".join(f"{name} {value / self.count:.3f}" for name, value in self.sums.items())
        self.sums.clear()
        self.count = 0
        minutes, hours = trainer.seconds / 60, trainer.audio_s / 3600
        return f"{trainer.update:6d} {minutes:5.1f} min  {losses}  x{60 * hours / minutes:.0f} {hours:.1f} h"


def run(arguments: argparse.Namespace) -> None:
    """Make the data once, then train in one or more processes."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(_clips(arguments), arguments)
    if arguments.processes == 1:
        work(0, arguments, None)
        return
    size = sum(
        parameter.numel() for parameter in Network(RECIPES[arguments.recipe].network(tokenizer.size)).parameters()
    )
    shared = SharedAverage(arguments.processes, size)
    multiprocessing.spawn(work, (arguments, shared), nprocs=arguments.processes)


def _clips(arguments: argparse.Namespace) -> list[Clip]:
    return prepare(arguments.data, arguments.cache or arguments.out / "cache", arguments.phrases, arguments.seed)


def work(rank: int, arguments: argparse.Namespace, shared: SharedAverage | None) -> None:
    """One process's part of the run."""
    out: Path = arguments.out
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("medium")
    torch.set_flush_denormal(True)
    clips = _clips(arguments)
    tokenizer = _tokenizer(clips, arguments)
    recipe = RECIPES[arguments.recipe]
    trainer = Trainer(recipe.network(tokenizer.size), arguments.device, arguments.seed, rank, shared)
    if arguments.begin:
        trainer.copy_weights(tokenizer, arguments.begin)
    if arguments.resume:
        trainer.restore(torch.load(out / "checkpoint.pt", weights_only=True, map_location=arguments.device))
    maker = StringMaker(clips, np.random.default_rng([arguments.seed, rank]), recipe.marks_ends)
    if rank > 0:
        train(trainer, maker, tokenizer, arguments, None)
        return
    size = sum(p.numel() for p in trainer.network.parameters()) / 1e6
    print(f"{len(clips)} clips, {size:.2f} M parameters", flush=True)
    train(trainer, maker, tokenizer, arguments, Observer(trainer, tokenizer, Evaluation(clips, 60), out))
    finish(trainer, clips, tokenizer, out)


def train(
    trainer: Trainer,
    maker: StringMaker,
    tokenizer: Tokenizer,
    arguments: argparse.Namespace,
    observer: "Observer | None",
) -> None:
    """Trains until the number of updates is reached, in blocks with a new random generator each."""
    delay = RECIPES[arguments.recipe].target_delay
    while trainer.update < arguments.updates:
        started_at = time.monotonic()
        rng = np.random.default_rng([arguments.seed, trainer.rank, trainer.update])
        torch.manual_seed(int(rng.integers(2**62)))  # dropout
        maker.restart(rng)
        for _ in range(min(BLOCK, arguments.updates - trainer.update)):
            now = trainer.stage
            batch = maker.batch(now, now.seconds / trainer.processes, tokenizer, delay)
            losses = trainer.step(batch, arguments.updates, rng)
            if observer is not None:
                observer.log.add(losses)
        trainer.seconds += time.monotonic() - started_at
        if observer is not None:
            observer.block_ended(trainer.update >= arguments.updates)


class Observer:
    """Logs each block; evaluates the averaged network and writes checkpoints regularly."""

    def __init__(self, trainer: Trainer, tokenizer: Tokenizer, evaluation: Evaluation, out: Path) -> None:
        self.trainer, self.evaluation, self.out = trainer, evaluation, out
        self.recogniser = Recogniser(trainer.average.network, trainer.mel, tokenizer)
        self.log = Log()

    def block_ended(self, last: bool) -> None:
        print(self.log.line(self.trainer), flush=True)
        if last or self.trainer.update % CHECKPOINT_EVERY == 0:
            self.checkpoint()
        if not last and self.trainer.update % EVALUATE_EVERY == 0:
            self.evaluate()

    def evaluate(self) -> None:
        scores = self.evaluation.run(self.recogniser)
        text = "  ".join(f"{name} transducer {s.transducer:.3f} ctc {s.ctc:.3f}" for name, s in scores.items())
        print(f"{self.trainer.update:6d} {self.trainer.seconds / 60:5.1f} min  WER {text}", flush=True)

    def checkpoint(self) -> None:
        """Written to a temporary file and renamed, so an interruption keeps the previous checkpoint."""
        temporary = self.out / "checkpoint.tmp"
        torch.save(self.trainer.state(), temporary)
        temporary.replace(self.out / "checkpoint.pt")


def _tokenizer(clips: list[Clip], arguments: argparse.Namespace) -> Tokenizer:
    model = arguments.out / "tokenizer.model"
    if model.exists():
        return Tokenizer(model)
    texts = [clip.text for clip in clips if clip.collection == "phrases" and clip.split == "train"]
    return train_tokenizer(texts, tokenizer_words(clips), RECIPES[arguments.recipe].marks_ends, model)


def finish(trainer: Trainer, clips: list[Clip], tokenizer: Tokenizer, out: Path) -> None:
    """Evaluate the averaged network on larger sets and export some of them; `publish` writes the model."""
    network = trainer.average.network.eval()
    recogniser = Recogniser(network, trainer.mel, tokenizer)
    report = {"updates": trainer.update, "audio_hours": round(trainer.audio_s / 3600, 2)}
    report |= Evaluation(clips, 300).report(recogniser)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    export(clips, out / "strings")
    print(json.dumps({k: v for k, v in report.items() if k != "confusions"}, indent=1), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a tiny model.")
    parser.add_argument("--recipe", choices=RECIPES, default="tiny")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/manifest.jsonl and text/")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the final model")
    parser.add_argument("--cache", type=Path, help="folder for synthesised speech (default: OUT/cache)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="1 on a GPU")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--phrases", type=int, default=30_000, help="synthesised phrases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--begin", type=Path, help="folder of a Conure model to copy initial weights from")
    parser.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    parser.add_argument("--updates", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run(parse())
