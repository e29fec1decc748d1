"""Decoders, among them one whose CUDA graph loops by conditional nodes. Runs in a separate process.

python -m bench.gpu.conditional LAYERS WIDTH
"""

from __future__ import annotations

import contextlib
import sys

import torch

from bench.gpu.clips import decoders
from bench.gpu.networks import Networks


def main() -> None:
    networks = Networks(torch.device("cuda"), int(sys.argv[1]), int(sys.argv[2]))
    with contextlib.redirect_stdout(sys.stderr):
        table = decoders(networks.runner, networks.device, conditional=True)
    print(table)


if __name__ == "__main__":
    main()
