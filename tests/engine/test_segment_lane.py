"""Live streams of a model that hears whole clips, with the embedded one and real speech."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from conure.audio.files import read_clip
from conure.engine.clips import transcribe_clips
from conure.engine.messages import (
    ENDS,
    Answer,
    Finished,
    Guessed,
    Heard,
    Marker,
    SpeechStarted,
    StreamOptions,
    UtteranceEnded,
)
from conure.engine.runner import Runner
from conure.engine.segment_lane import SegmentLane
from conure.engine.utterance import FACTOR, WINDOW
from conure.models.checkpoint import Checkpoint
from conure.service.opening import open_runner
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token
from conure.vad.endpoints import Endpointing
from conure.vad.silero import load_silero
from tests.vad.digits import RATE, recording, spoken
