"""Extracts the three speech clips of all references, and reads them back.

Their lengths differ and are not multiples of the 160-sample hop, so that each comparison covers padding, masks and the
last partial frame.
"""

import argparse
from pathlib import Path

import soundfile
import torch
from safetensors.torch import load_file

from tools.parity.storage import write_tensors

SAMPLE_RATE = 16_000
FILE_NAME = "audio.safetensors"

# file below the folder of clips, first sample, number of samples
EXCERPTS = (
    ("libri_test_other/1998-15444-0007.flac", 0, 49_613),
    ("clean_en/jfk.wav", 4_800, 32_077),
    ("libri_test_other/2414-128291-0000.flac", 11_200, 19_711),
)


def load_audio(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the clips as float32 [3, samples], zero-padded, and their lengths."""
    stored = load_file(folder / FILE_NAME)
    lengths = stored["lengths"]
    audio = torch.zeros(len(lengths), int(lengths.max()))
    for row, length in enumerate(lengths.tolist()):
        audio[row, :length] = stored[f"clip_{row}"].float() / 32768.0
    return audio, lengths


def cut_clip(path: Path, start: int, length: int) -> torch.Tensor:
    """Read `length` int16 samples from `start`."""
    samples, rate = soundfile.read(path, start=start, frames=length, dtype="int16")
    if rate != SAMPLE_RATE or samples.shape != (length,):
        raise ValueError(f"{path}: need {length} mono samples at {SAMPLE_RATE} Hz, got {samples.shape} at {rate} Hz")
    return torch.from_numpy(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder that holds libri_test_other/ and clean_en/")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clips = [cut_clip(options.clips / name, start, length) for name, start, length in EXCERPTS]
    tensors = {f"clip_{row}": clip for row, clip in enumerate(clips)}
    tensors["lengths"] = torch.tensor([len(clip) for clip in clips])
    write_tensors(options.out / FILE_NAME, tensors)


if __name__ == "__main__":
    main()
