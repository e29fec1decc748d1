"""With a converted model, neither an engine nor a command on the CPU imports torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from conure.engine.backends.registry import open_clip_runner
from conure.native.library import has_native_kernels
from tests.waiting import PATIENCE

pytestmark = pytest.mark.skipif(
    not has_native_kernels(),
    reason="without kernels the loop over tokens is in torch",
)

RECORDING = Path(str(resources.files("conure"))) / "data" / "jfk.flac"

ENGINE = """
import json, sys, threading
from pathlib import Path
from conure.audio.files import open_audio
from conure.engine.messages import Audio, Clip, Close, Finished, Open, StreamOptions, StreamTokens
from conure.engine.plan import Plan
from conure.engine.startup import start_engine

heard, over = {1: 0, 2: 0}, set()

def deliver(answers):
    for answer in answers:
        if isinstance(answer, StreamTokens):
            heard[answer.stream] += len(answer.tokens)
        elif isinstance(answer, Finished):
            over.add(answer.stream)
    if over == {1, 2}:
        engine.stop()

plan = Plan(live_models=("tiny-live",), clip_models=("tiny",), device="cpu", cache_folder=Path(sys.argv[1]))
engine, cards = start_engine(plan, deliver)
with open_audio(sys.argv[2], rate=16_000) as reader:
    samples = next(reader.blocks())[0][:160_000]
for request in (
    Open(1, StreamOptions("tiny-live", 160)), Audio(1, samples), Close(1), Clip(2, "tiny", samples)
):
    engine.submit(request)
engine.run()
print(json.dumps({"heard": list(heard.values()), "room": cards[0].capacity, "torch": "torch" in sys.modules}))
"""

COMMAND = """
import json, sys
from conure.cli.main import main
code = main(["transcribe", sys.argv[2], "--model", "tiny", "--output", sys.argv[1] + "/said.txt"])
print(json.dumps({"code": code, "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With both tiny models, converted."""
    folder = tmp_path_factory.mktemp("cache")
    for model in ("tiny", "tiny-live"):
        open_clip_runner(model, device="cpu", cache=folder)
    return folder


def run(cache: Path, program: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", program, str(cache), str(RECORDING)],
        env=os.environ | {"CONURE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_an_engine_transcribes_a_stream_and_a_clip(cache: Path) -> None:
    told = run(cache, ENGINE)
    assert told["torch"] is False
    assert all(told["heard"])  # type: ignore[arg-type]
    assert all(told["room"])  # type: ignore[arg-type]


def test_a_command_transcribes(cache: Path) -> None:
    assert run(cache, COMMAND) == {"code": 0, "torch": False}
    assert (cache / "said.txt").read_text().strip()
