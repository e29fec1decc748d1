"""Word error rates of the GPU's encoder in three precisions: float32, bfloat16 and 8-bit floats.

    python -m bench.precision [--model tiny] [--data FOLDER] [--device cpu]

Data: strings of words by speakers that are not in the training data of the shipped model, as in the tests; and with a
folder of speech (see tools/train) the strings that training is evaluated with, and read sentences, most of whose words
the model does not know, which makes rounding matter more. Prints word error rates, and token error rates relative to
float32. Without a GPU, 8-bit products are computed on the CPU, with the same inputs and another order of sums.
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
    runners = {name: open_runner(checkpoint, device) for name, open_runner in PRECISIONS.items()}
    print("| speech | clips | words |" + "".join(f" {name}: errors | tokens |" for name in runners))
    print("|---" * (3 + 2 * len(runners)) + "|")
    for speech in sets(options.data):
        print(row(speech, runners, checkpoint), flush=True)


def open_float32(checkpoint: Checkpoint, device: torch.device) -> TorchClipRunner:
    return TorchClipRunner(*build_network(checkpoint), device, torch.float32, folded=True)


def open_bfloat16(checkpoint: Checkpoint, device: torch.device) -> TorchClipRunner:
    return TorchClipRunner(*build_network(checkpoint), device, torch.bfloat16, folded=True)


def open_fp8(checkpoint: Checkpoint, device: torch.device) -> TorchClipRunner:
    runner = open_bfloat16(checkpoint, device)
    assert isinstance(runner.encoder, FoldedEncoder)
    quantise(runner.encoder)
    return runner


PRECISIONS: dict[str, Callable[[Checkpoint, torch.device], TorchClipRunner]] = {
    "float32": open_float32,
    "bfloat16": open_bfloat16,
    "e4m3": open_fp8,
}


def sets(data: Path | None) -> Iterator[Speech]:
    texts = json.loads((STRINGS / "texts.json").read_text())
    yield Speech("strings of the tests", [read(STRINGS / name) for name in texts], list(texts.values()))
    if data is None:
        return
    strings = real_strings(read_corpus(data), STRING_COUNT)
    yield Speech("strings", [excerpt.samples for excerpt in strings], [excerpt.text for excerpt in strings])
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
        texts = ["".join(checkpoint.tokenizer.pieces[token] for token in tokens).replace("▁", " ") for tokens in ids]
        numbers = [" ".join(map(str, tokens)) for tokens in ids]
        first = first or numbers
        cells += [f"{rate(speech.texts, texts):.2%}", f"{rate(first, numbers):.2%}"]
    return "| " + " | ".join(cells) + " |"


def rate(truth: Sequence[str], texts: Sequence[str]) -> float:
    return float(jiwer.wer(list(truth), list(texts)))


if __name__ == "__main__":
    main()
