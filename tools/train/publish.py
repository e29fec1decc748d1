"""Writes a trained network as a Conure model folder.

    python -m tools.train.publish [--recipe tiny-live] --run FOLDER --out FOLDER

Publishes the averaged weights of a run, matrices in half precision.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from conure.models import conure_file
from conure.models.checkpoint import Checkpoint
from conure.models.weights import is_learned
from conure.text.tokenizer import read_tokenizer
from tools.train.recipes import RECIPES, Recipe

LANGUAGES = ("en",)


def publish(recipe: Recipe, weights: dict[str, Tensor], tokenizer: Path, out: Path) -> None:
    config = recipe.network(weights["ctc_head.weight"].shape[0] - 1, ctc=recipe.publish_ctc)
    kept = {name for name in weights if is_learned(name) and (recipe.publish_ctc or not name.startswith("ctc_head."))}
    tensors = {name: _compact(value) for name, value in weights.items() if name in kept}
    pieces = read_tokenizer("tokenizer.model", tokenizer.read_bytes(), config.vocabulary)
    conure_file.save(Checkpoint(config, tensors, pieces, name=recipe.name, languages=LANGUAGES), out)


def _compact(value: Tensor) -> Tensor:
    """Half precision for matrices; vectors (norms, biases, running statistics) stay in single."""
    value = value.detach().cpu().contiguous()
    return value.half() if value.ndim > 1 else value


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish the averaged weights of a run.")
    parser.add_argument("--recipe", choices=RECIPES, default="tiny")
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoint.pt and tokenizer.model")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, e.g. src/conure/data/tiny")
    options = parser.parse_args()
    state = torch.load(options.run / "checkpoint.pt", weights_only=True, map_location="cpu")
    publish(RECIPES[options.recipe], state["average"], options.run / "tokenizer.model", options.out)


if __name__ == "__main__":
    main()
