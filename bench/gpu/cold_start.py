"""Times from the start of a process to its first transcript, with the weights on disk. Runs in a separate process.

    python -m bench.gpu.cold_start FOLDER DEVICE STARTED_AT

STARTED_AT is the start of the process, in seconds since 1970.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

SLOTS = 64
SIZES = (64, 32, 8, 1)
"""Batch sizes that are captured for so many slots, for each chunk."""


def main() -> None:
    folder, device_name, started_at = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    stages: list[tuple[str, float]] = []

    def reach(stage: str) -> None:
        stages.append((stage, time.time() - started_at))

    reach("Python")
    import torch  # noqa: PLC0415  its import is a part of what is measured

    from bench.audio import speech  # noqa: PLC0415
    from bench.gpu.streams import live_runner  # noqa: PLC0415
    from conure.engine.backends.cuda.stream_state import CudaStreamState  # noqa: PLC0415
    from conure.engine.backends.cuda.stream_step import CudaStreamStep  # noqa: PLC0415
    from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner  # noqa: PLC0415
    from conure.engine.lanes.clips import transcribe_clips  # noqa: PLC0415
    from conure.models import conure_file  # noqa: PLC0415

    reach("imports")
    device = torch.device(device_name)
    torch.zeros(1, device=device)
    reach("device")
    checkpoint = conure_file.read(folder)
    reach("weights in memory")
    runner = live_runner(checkpoint, device)
    clips = TorchClipRunner(runner.network, runner.feature_extractor, device)
    reach("weights on the device")
    transcribe_clips(clips, [speech(3.0)])
    reach("a recording's transcript")
    chunks = sorted((context.right + 1 for context in runner.config.encoder.contexts), reverse=True)
    with torch.inference_mode():
        state = CudaStreamState.allocate(runner, SLOTS)
        steps = [CudaStreamStep(runner, state, size, chunk) for chunk in chunks for size in SIZES]
    reach(f"{len(steps)} steps of streams captured")
    for stage, seconds in stages:
        print(f"{seconds:.2f}\t{stage}")


if __name__ == "__main__":
    main()
