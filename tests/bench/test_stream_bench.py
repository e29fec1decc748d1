"""A server of its own, clients in a process of their own, real sockets. How fast it is says nothing here."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from conure.bench.server import NO_CLIPS, start_server
from conure.cli.main import main
from conure.errors import EngineFailed

TINY = Path(str(resources.files("conure"))) / "data" / "tiny"
DIGITS = Path(__file__).parents[1] / "data" / "demo.flac"


def test_two_streams_are_heard_as_alone(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "live", "--model", str(TINY), "--audio", str(DIGITS), "--streams", "2", "--seconds", "2", "--json"]
    main(line)  # whether they are held is a question of time
    told = json.loads(capsys.readouterr().out)
    (trial,) = told["trials"]
    assert trial["ends"] == {"finished": 2}
    assert trial["seconds"] == pytest.approx(4.0)
    assert trial["words"] > 0
    assert trial["different"] == 0
    assert trial["final"]["count"] == 2
    assert trial["turns"] > 0
    assert trial["cpu"].keys() == trial["memory"].keys() == {"server", "engine"}
    assert told["machine"]["cores"] >= 1


def test_each_process_of_a_server_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "live", "--model", str(TINY), "--audio", str(DIGITS), "--streams", "1", "--seconds", "1"]
    main([*line, "--processes", "2", "--json"])
    (trial,) = json.loads(capsys.readouterr().out)["trials"]
    assert trial["cpu"].keys() == trial["memory"].keys() == {"server", "door 1", "door 2", "engine"}


def test_a_server_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(EngineFailed, match="the server did not start"),
        start_server(["--live-models", "./gone.nemo", "--file-models", NO_CLIPS]),
    ):
        pass


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "live", "--url", "http://127.0.0.1:9", "--streams", "1"]) == 2
    assert "no server answers at http://127.0.0.1:9" in capsys.readouterr().err
    assert main(["bench", "live", "--url", "http://127.0.0.1:9", "--threads", "2"]) == 2
    assert "--threads is the server's" in capsys.readouterr().err
    assert main(["bench", "live", "--streams", "0"]) == 2
    assert "streams is 0" in capsys.readouterr().err


def test_the_server_that_is_started_is_for_the_bench_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever the settings say of the server that is for others."""
    monkeypatch.setenv("CONURE_KEYS", str(tmp_path / "keys.json"))
    monkeypatch.setenv("CONURE_TLS_CERTIFICATE", str(tmp_path / "certificate.pem"))
    monkeypatch.setenv("CONURE_HOST", "0.0.0.0")
    with start_server(["--live-models", str(TINY), "--file-models", NO_CLIPS]) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.models()
