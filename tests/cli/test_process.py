"""`conure` as a process: what it loads, how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

CONURE = [sys.executable, "-m", "conure"]

PRETENDING = """
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
    return subprocess.run([*CONURE, *arguments], capture_output=True, text=True, timeout=180)


def pretending(body: str, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", PRETENDING.format(body=body), *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_quick_loads_nothing_heavy() -> None:
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert [line for line in done.stdout.splitlines() if line.startswith("loaded")] == ["loaded 0 []"] * 3, done.stderr


def test_bad_input_ends_with_two_and_loads_nothing(tmp_path: Path) -> None:
    done = run("transcribe", str(tmp_path / "gone.mp3"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"error: {tmp_path}/gone.mp3: no such file"


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    (folder / "a.wav").touch()
    process = pretending("pass", "a.wav", "-f", "txt")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=180) == 0


def test_control_c(folder: Path) -> None:
    (folder / "a.wav").touch()
    process = pretending("sys.stderr.write('up\\n'); sys.stderr.flush(); time.sleep(170)", "a.wav", "-o", "out/")
    assert process.stderr is not None
    assert process.stderr.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=180)
    assert (process.returncode, out, err) == (130, "", "")
    assert list((folder / "out").iterdir()) == []
