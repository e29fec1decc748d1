"""Train the tiny model: `python -m tools.train.train --data FOLDER --out FOLDER [--minutes N | --steps N]`.

Knows the model's size, the optimiser and its schedule, checkpoints and the log.  A run is seeded; with
`--steps` the same machine repeats it, with `--minutes` the schedule follows the clock.  `--processes 2` (the
default on a CPU) trains with two single-threaded processes; the first one judges, logs and saves.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing
from torch import nn

from conure.audio.features import LogMel, MelConfig
from conure.models.config import EncoderConfig, NetworkConfig
from conure.models.network import Network
from tools.train.corpus import SAMPLE_RATE, Clip
from tools.train.evaluate import Evaluation, Recogniser, export
from tools.train.losses import DURATIONS
from tools.train.objective import Objective, mixture, stage
from tools.train.parallel import Team, average_gradients
from tools.train.prepare import prepare, tokenizer_words
from tools.train.strings import Batch, StringMaker
from tools.train.tokenizer import Tokenizer, train_tokenizer

PEAK_RATE, FLOOR, WARMUP = 1e-3, 0.02, 60
EMA_DECAY = 0.998
LOG_EVERY = 50
EVALUATE_EVERY_S, CHECKPOINT_EVERY_S = 420.0, 300.0


def network_config(vocabulary: int) -> NetworkConfig:
    encoder = EncoderConfig(features=80, layers=8, width=144, heads=4, kernel=9, channels=48, bias=True, dropout=0.0)
    return NetworkConfig(
        encoder=encoder,
        mel=MelConfig(features=80, normalize="per_feature"),
        vocabulary=vocabulary,
        predictor_width=128,
        predictor_layers=1,
        joint_width=128,
        durations=DURATIONS,
        ctc=True,
    )


def initialise(network: Network) -> None:
    """Let the audio through the subsampling at first.

    With PyTorch's defaults each of its five convolutions lets a sixth of the signal's power through while the
    biases stay, so that the layers see a nearly constant input and stay for thousands of updates at the
    frequencies of words.
    """
    front = network.encoder.pre_encode
    for module in front.modules():
        if isinstance(module, nn.Conv2d):
            mixes = module.groups == 1  # a ReLU follows; the depthwise ones have none
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if mixes else "linear")
            nn.init.zeros_(module.bias)
    nn.init.xavier_normal_(front.out.weight)
    nn.init.zeros_(front.out.bias)


class Budget:
    """How much of the run is over, by updates or by the clock."""

    def __init__(self, steps: int | None, minutes: float | None, used_s: float = 0.0) -> None:
        self.steps, self.minutes = steps, minutes
        self.started = time.monotonic() - used_s

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def progress(self, update: int) -> float:
        if self.steps is not None:
            return update / self.steps
        assert self.minutes is not None
        return self.elapsed_s / (60 * self.minutes)


class Average:
    """An exponential moving average of a network's weights and statistics, kept in a twin network."""

    def __init__(self, network: Network) -> None:
        self.network = Network(network.config).to(network.device)
        self.network.load_state_dict(network.state_dict())
        self.updates = 0

    @torch.no_grad()
    def update(self, network: Network) -> None:
        self.updates += 1
        decay = min(EMA_DECAY, (1 + self.updates) / (10 + self.updates))
        # the only integers are the batch norms' counters, which nothing reads
        mine = [value for value in self.network.state_dict().values() if value.is_floating_point()]
        theirs = [value for value in network.state_dict().values() if value.is_floating_point()]
        torch._foreach_lerp_(mine, theirs, 1 - decay)


class Trainer:
    """Network, optimiser, average and counters: everything a checkpoint holds."""

    def __init__(self, config: NetworkConfig, device: str, seed: int, rank: int = 0, team: Team | None = None) -> None:
        torch.manual_seed(seed)  # the same weights in every process, other strings and masks
        self.network = Network(config).to(device)
        initialise(self.network)
        torch.manual_seed(seed + 1_000 * rank)
        self.mel = LogMel(config.mel).to(device)
        self.average = Average(self.network)
        self.optimiser = torch.optim.AdamW(_groups(self.network), lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)
        self.objective = Objective(self.network, self.mel, device, seed + 1_000 * rank)
        self.rank, self.team = rank, team
        self.processes = team.processes if team else 1
        self.update = 0
        self.audio_s = 0.0

    def step(self, batch: Batch, clock: float) -> tuple[float, dict[str, float]]:
        """One update at this progress; returns the progress that all processes agree on and the losses."""
        self.network.train()
        loss, parts = self.objective(batch, mixture(self.update), stage(self.update).augment)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        progress = average_gradients(self.team, self.rank, list(self.network.parameters()), clock)
        rate = PEAK_RATE * min(1.0, (self.update + 1) / WARMUP) * _cosine(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if bool(norm.isfinite()):
            self.optimiser.step()
            if self.rank == 0:
                self.average.update(self.network)
        self.update += 1
        self.audio_s += self.processes * float(batch.lengths.sum()) / SAMPLE_RATE
        return progress, {**parts, "norm": float(norm)}

    def state(self) -> dict[str, object]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "averaged": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "update": self.update,
            "audio_s": self.audio_s,
        }

    def restore(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["averaged"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.update, self.audio_s = state["update"], state["audio_s"]


def _groups(network: Network) -> list[dict]:
    """Weight decay for matrices only."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": 1e-2}, {"params": others, "weight_decay": 0.0}]


def _cosine(progress: float) -> float:
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Log:
    """Sums of losses between lines, and the lines."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.count = 0

    def add(self, losses: dict[str, float]) -> None:
        self.count += 1
        for name, value in losses.items():
            self.sums[name] += value

    def line(self, trainer: Trainer, budget: Budget) -> str:
        losses = " ".join(f"{name} {value / self.count:.3f}" for name, value in self.sums.items())
        self.sums.clear()
        self.count = 0
        elapsed = budget.elapsed_s
        speed = trainer.audio_s / elapsed
        return f"{trainer.update:6d} {elapsed / 60:5.1f} min  {losses}  x{speed:.0f} {trainer.audio_s / 3600:.1f} h"


def run(arguments: argparse.Namespace) -> None:
    """Make the data once, then train in one or more processes."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(_clips(arguments), arguments.out)
    if arguments.processes == 1:
        work(0, arguments, None)
        return
    size = sum(parameter.numel() for parameter in Network(network_config(tokenizer.size)).parameters())
    team = Team(arguments.processes, size + 1)  # the gradients and the clock
    multiprocessing.spawn(work, (arguments, team), nprocs=arguments.processes)


def _clips(arguments: argparse.Namespace) -> list[Clip]:
    return prepare(arguments.data, arguments.cache or arguments.out / "cache", arguments.phrases, arguments.seed)


def work(rank: int, arguments: argparse.Namespace, team: Team | None) -> None:
    """One process's part of the run."""
    out: Path = arguments.out
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("medium")
    torch.set_flush_denormal(True)
    clips = _clips(arguments)
    tokenizer = _tokenizer(clips, out)
    config = network_config(tokenizer.size)
    trainer = Trainer(config, arguments.device, arguments.seed, rank, team)
    used_s = 0.0
    if arguments.resume:
        state = torch.load(out / "checkpoint.pt", weights_only=True)
        trainer.restore(state)
        used_s = state["elapsed_s"]
    # a resumed run draws other strings than the first part did
    maker = StringMaker(clips, arguments.seed + 1_000 * rank + trainer.update)
    budget = Budget(arguments.steps, arguments.minutes, used_s)
    if rank == 0:
        size = sum(p.numel() for p in trainer.network.parameters()) / 1e6
        print(f"{len(clips)} clips, {size:.2f} M parameters", flush=True)
        observer = Observer(trainer, budget, tokenizer, Evaluation(clips, 60), out)
        train(trainer, maker, tokenizer, budget, observer)
        observer.checkpoint()
        finish(trainer, clips, tokenizer, out)
    else:
        train(trainer, maker, tokenizer, budget, None)


def train(
    trainer: Trainer, maker: StringMaker, tokenizer: Tokenizer, budget: Budget, observer: "Observer | None"
) -> None:
    progress = 0.0
    while progress < 1.0:
        now = stage(trainer.update)
        batch = maker.batch(now, now.seconds / trainer.processes, tokenizer)
        progress, losses = trainer.step(batch, budget.progress(trainer.update))
        if observer is not None:
            observer.see(losses)


class Observer:
    """Logs, judges the averaged network and writes checkpoints, every so many updates or seconds."""

    def __init__(
        self, trainer: Trainer, budget: Budget, tokenizer: Tokenizer, evaluation: Evaluation, out: Path
    ) -> None:
        self.trainer, self.budget, self.evaluation, self.out = trainer, budget, evaluation, out
        average = trainer.average.network
        self.recogniser = Recogniser(average, trainer.mel, tokenizer, str(average.device))
        self.log = Log()
        self.evaluated_s = self.saved_s = budget.elapsed_s

    def see(self, losses: dict[str, float]) -> None:
        self.log.add(losses)
        if self.trainer.update % LOG_EVERY == 0:
            print(self.log.line(self.trainer, self.budget), flush=True)
        if self.budget.elapsed_s - self.evaluated_s > EVALUATE_EVERY_S:
            self.evaluate()
            self.evaluated_s = self.budget.elapsed_s
        if self.budget.elapsed_s - self.saved_s > CHECKPOINT_EVERY_S:
            self.checkpoint()
            self.saved_s = self.budget.elapsed_s

    def evaluate(self) -> None:
        scores = self.evaluation.run(self.recogniser)
        text = "  ".join(f"{name} tdt {s.tdt:.3f} ctc {s.ctc:.3f}" for name, s in scores.items())
        print(f"{self.trainer.update:6d} {self.budget.elapsed_s / 60:5.1f} min  WER {text}", flush=True)

    def checkpoint(self) -> None:
        """Written beside and moved, so that a kill in between leaves the one before."""
        beside = self.out / "checkpoint.tmp"
        torch.save({**self.trainer.state(), "elapsed_s": self.budget.elapsed_s}, beside)
        beside.replace(self.out / "checkpoint.pt")


def _tokenizer(clips: list[Clip], out: Path) -> Tokenizer:
    model = out / "tokenizer.model"
    if model.exists():
        return Tokenizer(model)
    texts = [clip.text for clip in clips if clip.collection == "phrases" and clip.split == "train"]
    return train_tokenizer(texts, tokenizer_words(clips), model)


def finish(trainer: Trainer, clips: list[Clip], tokenizer: Tokenizer, out: Path) -> None:
    """Judge the averaged network on larger sets, and write some of these as files; `publish` writes the model."""
    network = trainer.average.network.eval()
    recogniser = Recogniser(network, trainer.mel, tokenizer, str(network.device))
    report = {"updates": trainer.update, "audio_hours": round(trainer.audio_s / 3600, 2)}
    report |= Evaluation(clips, 300).report(recogniser)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    export(clips, out / "strings")
    print(json.dumps({k: v for k, v in report.items() if k != "confusions"}, indent=1), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the tiny model.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/manifest.jsonl and text/")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the final model")
    parser.add_argument("--cache", type=Path, help="folder for synthesised speech (default: OUT/cache)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="1 on a GPU")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--phrases", type=int, default=30_000, help="synthesised phrases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--steps", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    run(parse())
