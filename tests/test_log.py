"""Log lines."""

from __future__ import annotations

import json
import logging

import pytest

from conure import log as logs


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_has_the_id_of_its_stream(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("verbose", as_json=as_json)
    try:
        assert logs.current_config() == ("verbose", as_json)
        logging.getLogger("conure.service").info("stream %s opened", "abc", extra={"stream": "abc"})
    finally:
        logs.configure("quiet")
    (line,) = capsys.readouterr().err.splitlines()
    assert "stream abc opened" in line
    if as_json:
        told = json.loads(line)["log"]
        assert (told["stream"], told["level"], told["place"]) == ("abc", "info", "conure.service")
