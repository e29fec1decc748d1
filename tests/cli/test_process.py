"""`conure` as a process: its imports and its exit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.service.voices import STRINGS, save, speech
from tests.waiting import PATIENCE

CONURE = [sys.executable, "-m", "conure"]

FAKE_RECOGNIZER = """
import sys, time
from conure.cli import main, transcribe
from conure.types import Transcript

class Recognizer:
    def transcribe(self, source, **options):
        {body}
        return Transcript("hello " * 50_000, 1.0)

transcribe.open_recognizer = lambda settings: Recognizer()
sys.argv = ["conure", "transcribe", *sys.argv[1:]]
main.run()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CONURE, *arguments], capture_output=True, text=True, timeout=PATIENCE)


def start_fake(body: str, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", FAKE_RECOGNIZER.format(body=body), *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_quick_commands_import_nothing_heavy() -> None:
    code = """if True:
        import sys
        from conure.cli.main import main
        for line, heavy in (
            ("--help", {"pydantic", "huggingface_hub"}), ("transcribe --help", {"huggingface_hub"}), ("models", set())
        ):
            code = main(line.split())
            heavy |= {"torch", "numpy", "av", "onnxruntime"}
            print("loaded", code, sorted(heavy & sys.modules.keys()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert [line for line in done.stdout.splitlines() if line.startswith("loaded")] == ["loaded 0 []"] * 3, done.stderr


def test_bad_input_exits_with_two_and_imports_nothing(tmp_path: Path) -> None:
    done = run("transcribe", str(tmp_path / "gone.mp3"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"error: {tmp_path}/gone.mp3: no such file"


def test_a_closed_stdout_is_not_an_error(folder: Path) -> None:
    (folder / "a.wav").touch()
    process = start_fake("pass", "a.wav", "-f", "txt")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=PATIENCE) == 0


def test_control_c(folder: Path) -> None:
    (folder / "a.wav").touch()
    process = start_fake("sys.stderr.write('up\\n'); sys.stderr.flush(); time.sleep(170)", "a.wav", "-o", "out/")
    assert process.stderr is not None
    assert process.stderr.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "", "")
    assert list((folder / "out").iterdir()) == []


@pytest.fixture
def running_command(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A command that printed the first transcript and is far from the last, and its child processes."""
    long = [save(tmp_path / f"{number}.wav", np.tile(speech(100, number), 12)) for number in range(2)]
    line = [*CONURE, "transcribe", "--model", "tiny", str(STRINGS[0]), *map(str, long)]
    environment = os.environ | {"CONURE_DECODE_WORKERS": "2", "CONURE_BATCH_SECONDS": "30"}
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"==> {STRINGS[0]} <==\n"
        yield process, psutil.Process(process.pid).children(recursive=True)
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_survives_the_command(
    running_command: tuple[subprocess.Popen[str], list[psutil.Process]], number: signal.Signals
) -> None:
    """Ctrl-C is sent to the whole process group."""
    process, children = running_command
    assert len(children) == 2
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert (out.count("==>"), err) == (0, "")
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
