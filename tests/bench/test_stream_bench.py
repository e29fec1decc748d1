"""Measuring streams with a server, clients in other processes, and sockets. The speed itself is not tested."""

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


def test_concurrent_streams_equal_single_streams(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "live", "--model", str(TINY), "--audio", str(DIGITS), "--streams", "2", "--seconds", "2", "--json"]
    main(line)  # whether they are sustained depends on the machine
    result = json.loads(capsys.readouterr().out)
    (trial,) = result["trials"]
    assert trial["ends"] == {"finished": 2}
    assert trial["seconds"] == pytest.approx(4.0)
    assert trial["words"] > 0
    assert trial["different"] == 0
    assert trial["final"]["count"] == 2
    assert trial["turns"] > 0
    assert trial["cpu"].keys() == trial["memory"].keys() == {"server", "engine"}
    assert result["machine"]["cores"] >= 1


def test_each_process_of_a_server_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "live", "--model", str(TINY), "--audio", str(DIGITS), "--streams", "1", "--seconds", "1"]
    main([*line, "--processes", "2", "--json"])
    (trial,) = json.loads(capsys.readouterr().out)["trials"]
    assert trial["cpu"].keys() == trial["memory"].keys() == {"server", "server process 1", "server process 2", "engine"}


def test_a_server_that_does_not_start_raises() -> None:
    with (
        pytest.raises(EngineFailed, match="the server did not start"),
        start_server(["--live-models", "./gone.nemo", "--file-models", NO_CLIPS]),
    ):
        pass


def test_an_unreachable_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "live", "--url", "http://127.0.0.1:9", "--streams", "1"]) == 2
    assert "no server at http://127.0.0.1:9" in capsys.readouterr().err
    assert main(["bench", "live", "--url", "http://127.0.0.1:9", "--threads", "2"]) == 2
    assert "--threads has no effect on a running server" in capsys.readouterr().err
    assert main(["bench", "live", "--streams", "0"]) == 2
    assert "streams is 0" in capsys.readouterr().err


def test_a_started_server_is_local_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of a production server do not apply."""
    monkeypatch.setenv("CONURE_KEYS", str(tmp_path / "keys.json"))
    monkeypatch.setenv("CONURE_TLS_CERTIFICATE", str(tmp_path / "certificate.pem"))
    monkeypatch.setenv("CONURE_HOST", "0.0.0.0")
    with start_server(["--live-models", str(TINY), "--file-models", NO_CLIPS]) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.models()
