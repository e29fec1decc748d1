"""The run of a training: its schedule, and that a stopped run goes on as if it had not been stopped."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conure.models.config import NetworkConfig
from tools.train import train as training
from tools.train.corpus import Clip
from tools.train.recipes import RECIPES
from tools.train.strings import StringMaker
from tools.train.tokenizer import Tokenizer
from tools.train.train import Trainer, rate, train

WORDS = ("one", "two", "three", "four")
TOKENIZER = Path(__file__).parents[2] / "src" / "conure" / "data" / "tiny" / "tokenizer.model"
UPDATES = 6


@pytest.fixture
def clips() -> list[Clip]:
    """Noise that stands for words and phrases."""
    rng = np.random.default_rng(1)
    texts = [("fsdd", word) for word in WORDS] + [("phrases", " ".join(WORDS))]
    return [
        Clip(text, (3_000 * rng.standard_normal(4_000)).astype(np.int16), "a", collection, "train")
        for collection, text in texts
    ]


def small(recipe: str, vocabulary: int) -> NetworkConfig:
    config = RECIPES[recipe].network(vocabulary)
    encoder = replace(config.encoder, layers=1, width=16, heads=2, channels=4)
    return replace(config, encoder=encoder, predictor_width=8, joint_width=8)


def run(trainer: Trainer, clips: list[Clip], recipe: str, updates: int) -> None:
    maker = StringMaker(clips, np.random.default_rng(0), RECIPES[recipe].marks_ends)
    arguments = argparse.Namespace(recipe=recipe, seed=3, updates=updates)
    train(trainer, maker, Tokenizer(TOKENIZER), arguments, None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    recipe: str, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "BLOCK", 2)
    monkeypatch.setattr(training, "rate", lambda update, updates: 1e-3)
    config = small(recipe, Tokenizer(TOKENIZER).size)
    whole, first, second = (Trainer(config, "cpu", seed) for seed in (3, 3, 4))
    run(whole, clips, recipe, UPDATES)
    run(first, clips, recipe, UPDATES - 2)
    second.restore(first.state())
    run(second, clips, recipe, UPDATES)
    assert (second.update, second.audio_s) == (whole.update, whole.audio_s)
    for twins in ("network", "average"):
        one, other = (trainer.state()[twins] for trainer in (whole, second))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_beginning_of_a_run_does_not_depend_on_its_length() -> None:
    assert [rate(update, 1_000) for update in range(700)] == [rate(update, 9_000) for update in range(700)]


def test_the_rate_falls_to_nothing() -> None:
    assert rate(0, 1_000) < rate(30, 1_000) < rate(59, 1_000) == rate(750, 1_000)
    assert 0 < rate(999, 1_000) < 0.01 * rate(750, 1_000)
