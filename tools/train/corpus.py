"""Clips of real recordings, read from the manifest.

Selects the collections usable for training and normalises texts and samples. Whole speakers are held out
(`split == "dev"`), except in the two collections without speaker names (`wakewords_pv`, `mycroft_words`): their dev
clips may be of training speakers, so they are used neither for training nor for evaluation.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16_000
COLLECTIONS = (
    "fsdd", "an4", "speech_commands", "dsp20_en", "ros_commands", "wakewords_pv", "mycroft_words",
    "ljspeech", "vctk", "misc_sentences",
)  # fmt: skip
UNNAMED_SPEAKERS = ("wakewords_pv", "mycroft_words")
_WORDS = re.compile(r"[a-z]+(?:'[a-z]+)*(?: [a-z]+(?:'[a-z]+)*)*")


@dataclass(frozen=True)
class Clip:
    """A piece of speech whose words are known.  `samples` are int16 at 16 kHz, trimmed of silence."""

    text: str
    samples: np.ndarray
    speaker: str
    collection: str
    split: str

    @property
    def words(self) -> list[str]:
        return self.text.split()


def normalise_text(text: str) -> str | None:
    """Lower case without punctuation, or None where the text has digits or foreign letters."""
    text = re.sub(r"[.,;:!?\"()\-]+", " ", text.lower())
    text = re.sub(r"\s+", " ", text).strip()
    return text if _WORDS.fullmatch(text) else None


def trim(samples: np.ndarray, threshold: float = 0.03, margin_s: float = 0.04) -> np.ndarray:
    """Cut leading and trailing parts that stay under `threshold` of the loudest 10 ms."""
    hop = SAMPLE_RATE // 100
    count = len(samples) // hop
    if count < 5:
        return samples
    frames = samples[: count * hop].reshape(count, hop).astype(np.float32)
    level = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(level > threshold * level.max())
    if len(loud) == 0:
        return samples
    margin = int(margin_s * SAMPLE_RATE)
    return samples[max(0, loud[0] * hop - margin) : (loud[-1] + 1) * hop + margin]


def read_corpus(data: Path) -> list[Clip]:
    """All usable clips of `data/train/manifest.jsonl`."""
    folder = data / "train"
    clips = []
    with open(folder / "manifest.jsonl") as rows:
        for line in rows:
            clip = _read_clip(folder, json.loads(line))
            if clip is not None:
                clips.append(clip)
    return clips


def _read_clip(folder: Path, row: dict) -> Clip | None:
    collection = row["path"].split("/")[0]
    text = normalise_text(row["text"] or "")
    if collection not in COLLECTIONS or text is None:
        return None
    samples, rate = soundfile.read(folder / row["path"], dtype="int16")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        return None
    return Clip(text, trim(samples), row["speaker"] or "unknown", collection, row["split"])
