"""What half floats and 8-bit floats cost a model in words: the encoder as a card runs it, in three precisions.

    python -m bench.precision [--model tiny] [--data FOLDER] [--device cpu]

Strings of words by speakers that the embedded model never heard: those that the tests replay, and with a folder of
speech (see tools/train) as many as training is judged by, and read sentences, most of whose words it cannot know: a
harder test of what rounding changes. Told are word error rates and, of the tokens that float32 gives, the share that
another precision leaves out, adds or confuses. Where there is no card, 8-bit products are made on the CPU, with the
same numbers in and another order of sums.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch

from conure.audio.files import open_audio
from conure.engine.backends.registry import choose_device
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.lanes.clips import transcribe_clips
from conure.models.checkpoint import Checkpoint
from conure.models.checkpoint_paths import find_checkpoint
from conure.models.folded_encoder import FoldedEncoder
from conure.models.fp8_linear import quantise
from conure.models.loader import build_network
from tools.train.corpus import normalise_text, read_corpus
from tools.train.evaluate import real_strings

STRINGS = Path(__file__).parents[1] / "tests" / "data" / "strings"
STRING_COUNT = 300


@dataclass(frozen=True)
class Speech:
    name: str
    clips: list[np.ndarray]
    texts: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    checkpoint, device = find_checkpoint(options.model).load(), choose_device(options.device)
    runners = {name: opened(checkpoint, device) for name, opened in PRECISIONS.items()}
    print("| speech | clips | words |" + "".join(f" {name}: errors | tokens |" for name in runners))
    print("|---" * (3 + 2 * len(runners)) + "|")
    for speech in sets(options.data):
        print(row(speech, runners, checkpoint), flush=True)


def exact(checkpoint: Checkpoint, device: torch.device) -> TorchClipRunner:
    return TorchClipRunner(*build_network(checkpoint), device, torch.float32, folded=True)


def halves(checkpoint: Checkpoint, device: torch.device) -> TorchClipRunner:
    return TorchClipRunner(*build_network(checkpoint), device, torch.bfloat16, folded=True)


def eights(checkpoint: Checkpoint, device: torch.device) -> TorchClipRunner:
    runner = halves(checkpoint, device)
    assert isinstance(runner.encoder, FoldedEncoder)
    quantise(runner.encoder)
    return runner


PRECISIONS: dict[str, Callable[[Checkpoint, torch.device], TorchClipRunner]] = {
    "float32": exact,
    "bfloat16": halves,
    "e4m3": eights,
}


def sets(data: Path | None) -> Iterator[Speech]:
    texts = json.loads((STRINGS / "texts.json").read_text())
    yield Speech("strings of the tests", [read(STRINGS / name) for name in texts], list(texts.values()))
    if data is None:
        return
    strings = real_strings(read_corpus(data), STRING_COUNT)
    yield Speech("strings", [one.samples for one in strings], [one.text for one in strings])
    lines = [json.loads(line) for line in (data / "test" / "manifest.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["path"].startswith("libri")]
    clips = [read(data / "test" / line["path"]) for line in lines]
    yield Speech("read sentences", clips, [normalise_text(line["text"]) or "" for line in lines])


def read(path: Path) -> np.ndarray:
    with open_audio(path, rate=16_000, channels="mix", max_seconds=None) as reader:
        return np.concatenate([block[0] for block in reader.blocks()])


def row(speech: Speech, runners: dict[str, TorchClipRunner], checkpoint: Checkpoint) -> str:
    cells = [speech.name, str(len(speech.clips)), str(sum(len(text.split()) for text in speech.texts))]
    first: list[str] | None = None
    for runner in runners.values():
        ids = [[token.id for token in tokens] for tokens in transcribe_clips(runner, speech.clips)]
        heard = ["".join(checkpoint.tokenizer.pieces[token] for token in tokens).replace("▁", " ") for tokens in ids]
        numbers = [" ".join(map(str, tokens)) for tokens in ids]
        first = first or numbers
        cells += [f"{rate(speech.texts, heard):.2%}", f"{rate(first, numbers):.2%}"]
    return "| " + " | ".join(cells) + " |"


def rate(truth: Sequence[str], heard: Sequence[str]) -> float:
    return float(jiwer.wer(list(truth), list(heard)))


if __name__ == "__main__":
    main()
