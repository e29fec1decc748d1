"""Synthesised speech: texts, voices, and the cache on disk.

Uses two speech synthesisers, flite and espeak-ng (Debian packages). Phrases are sentences split at punctuation. Whole
sentences are held out by a hash of their text, so held-out phrases are not in the training data. Single words are
spoken by many more voices.
"""

import json
import random
import re
import subprocess
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from tools.train.corpus import Clip, normalise_text, trim

PHRASE_VOICES = ("flite:slt", "flite:rms", "flite:kal16", "espeak:en-us", "espeak:en-gb+f2")
FLITE_VOICES = ("slt", "rms", "awb", "kal16")
ESPEAK_VOICES = tuple(
    f"{accent}+{variant}"
    for accent in ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
    for variant in ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ABBREVIATIONS = {"mr", "mrs", "dr", "st", "messrs", "esq", "jr", "no", "etc", "vs", "lt", "col", "gen", "sgt"}
HELD_OUT_DIVISOR = 40


@dataclass(frozen=True)
class Job:
    """One call of a synthesiser.  `speed` is 1 for the voice's own tempo; `pitch` is espeak's 0..99."""

    text: str
    voice: str
    split: str
    collection: str
    speed: float = 1.0
    pitch: int = 50


def phrase_jobs(sentences: Sequence[str], count: int, seed: int) -> list[Job]:
    """`count` phrases, each spoken once by one of the few phrase voices."""
    rng = random.Random(seed)
    train: set[str] = set()
    dev: set[str] = set()
    for sentence in sentences:
        held_out = zlib.crc32(sentence.encode()) % HELD_OUT_DIVISOR == 0
        (dev if held_out else train).update(_phrases(sentence, rng))
    texts = [(text, "train") for text in sorted(train)]
    texts += [(text, "dev") for text in sorted(dev - train)]
    rng.shuffle(texts)
    return [
        Job(text, rng.choice(PHRASE_VOICES), split, "phrases", rng.uniform(0.92, 1.12), rng.randint(42, 58))
        for text, split in texts[:count]
    ]


def _phrases(sentence: str, rng: random.Random) -> list[str]:
    """Parts of the sentence between punctuation, of 2 to 12 words each; longer ones are split."""
    found = []
    for part in re.split(r"[,;:.!?()\"]|--+", sentence):
        text = normalise_text(part)
        if text is None or _ABBREVIATIONS & set(text.split()):
            continue
        words = text.split()
        while len(words) > 12:
            cut = rng.randint(4, 9)
            found.append(" ".join(words[:cut]))
            words = words[cut:]
        if len(words) >= 2:
            found.append(" ".join(words))
    return found


def word_jobs(words: Sequence[str], seed: int) -> list[Job]:
    """Every word alone: all flite voices at two tempos, and a sample of the espeak voices."""
    rng = random.Random(seed)
    jobs = []
    for word in words:
        for voice in FLITE_VOICES:
            for speed in (0.9, 1.15):
                jobs.append(Job(word, f"flite:{voice}", "train", "words", speed))
        for voice in rng.sample(ESPEAK_VOICES, 40 if word in DIGITS else 10):
            speed, pitch = rng.uniform(0.75, 1.3), rng.randint(25, 75)
            jobs.append(Job(word, f"espeak:{voice}", "train", "words", speed, pitch))
    return jobs


def synthesise_clip(job: Job) -> Clip | None:
    """Run the synthesiser; None if the result is not usable."""
    engine, voice = job.voice.split(":")
    if engine == "flite":
        stretch = f"duration_stretch={1 / job.speed:.3f}"
        command = ["flite", "-voice", voice, "--setf", stretch, "-t", job.text, "-o", "/dev/stdout"]
    else:
        tempo = str(int(165 * job.speed))
        command = ["espeak-ng", "-v", voice, "-p", str(job.pitch), "-s", tempo, "--stdout", job.text]
    output = subprocess.run(command, capture_output=True, check=False).stdout
    samples = np.frombuffer(output[44 : len(output) // 2 * 2], "<i2")  # 44 bytes of header, sizes unreliable
    if engine == "espeak":  # 22.05 kHz
        samples = resample_poly(samples.astype(np.float32), 320, 441).clip(-32768, 32767).astype(np.int16)
    samples = trim(samples, threshold=0.01)
    if len(samples) < 1_000:
        return None
    return Clip(job.text, samples, job.voice, job.collection, job.split)


def synthesise(jobs: Sequence[Job], cache: Path, workers: int = 2) -> list[Clip]:
    """The jobs' clips, from the cache if it has the same jobs."""
    if not _is_current(jobs, cache):
        with ThreadPoolExecutor(workers) as pool:
            _save([clip for clip in pool.map(synthesise_clip, jobs) if clip is not None], jobs, cache)
    return _load(cache)


def _fingerprint(jobs: Sequence[Job]) -> int:
    return zlib.crc32(repr(list(jobs)).encode())


def _is_current(jobs: Sequence[Job], cache: Path) -> bool:
    index = cache.with_suffix(".json")
    return index.exists() and json.loads(index.read_text())["fingerprint"] == _fingerprint(jobs)


def _save(clips: Sequence[Clip], jobs: Sequence[Job], cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache.with_suffix(".npy"), np.concatenate([clip.samples for clip in clips]))
    rows = [[clip.text, clip.speaker, clip.collection, clip.split, len(clip.samples)] for clip in clips]
    cache.with_suffix(".json").write_text(json.dumps({"fingerprint": _fingerprint(jobs), "clips": rows}))


def _load(cache: Path) -> list[Clip]:
    samples = np.load(cache.with_suffix(".npy"), mmap_mode="r")
    clips, start = [], 0
    for text, speaker, collection, split, length in json.loads(cache.with_suffix(".json").read_text())["clips"]:
        clips.append(Clip(text, samples[start : start + length], speaker, collection, split))
        start += length
    return clips
