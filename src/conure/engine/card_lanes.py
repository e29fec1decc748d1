"""Lanes of models on a card, recorded before the first stream comes."""

from __future__ import annotations

from conure.engine.clips import CARD_BATCH_SECONDS
from conure.engine.device_lane import DeviceLane
from conure.engine.live_runner import LiveRunner
from conure.engine.memory import CLIP
from conure.engine.recorded_decoder import RecordedDecoder
from conure.engine.runner import Runner
from conure.text.tokenizer import Tokenizer

__all__ = ["open_device_lane", "prepare_clips"]


def open_device_lane(runner: LiveRunner, slots: int, tokenizer: Tokenizer) -> DeviceLane:
    lane = DeviceLane(runner, slots, tokenizer)
    lane.prepare()
    return lane


def prepare_clips(runner: Runner) -> None:
    """Transducers of networks on a card are recorded; CTC heads need no loop."""
    if isinstance(runner.decoder, RecordedDecoder):
        runner.decoder.prepare(int(CARD_BATCH_SECONDS) // CLIP)
