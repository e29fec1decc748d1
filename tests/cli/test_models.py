"""`conure models`, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conure.cli import downloads
from conure.cli import models as command
from conure.engine.backends import registry as opening
from conure.errors import ModelNotFound
from conure.models import hub
from conure.models.catalog import MODELS
from conure.models.hub_repository import HubRepository, Progress
from tests.cli.conftest import Call


@pytest.fixture(autouse=True)
def hub_of_the_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """What is on disk, by repository. A download puts it there; that of "gone/model" fails."""
    here: dict[str, Path] = {}

    def fetch(wanted: HubRepository, progress: Progress | None = None) -> Path:
        if wanted.repository == "gone/model":
            raise ModelNotFound("gone/model is not on disk and cannot be downloaded", "pull it elsewhere")
        if progress is not None:
            progress(1, None)
            progress(2, 2)
        return here.setdefault(wanted.repository, tmp_path / wanted.repository)

    monkeypatch.setattr(hub, "cached_path", lambda wanted: here.get(wanted.repository))
    monkeypatch.setattr(hub, "is_cached", lambda wanted: wanted.repository in here)
    monkeypatch.setattr(hub, "fetch", fetch)
    return here


def test_every_model_is_listed(call: Call, hub_of_the_test: dict[str, Path]) -> None:
    hub_of_the_test["nvidia/parakeet-ctc-0.6b"] = Path("there")
    done = call("models")
    head, *lines = done.out.splitlines()
    assert head.split() == ["NAME", "FAMILY", "LANGUAGES", "FOR", "SIZE", "ON", "DISK"]
    assert [line.split()[0] for line in lines] == [model.name for model in MODELS]
    assert [line.split()[0] for line in lines if line.endswith("yes") and "tiny" not in line] == ["parakeet-ctc-0.6b"]
    listed = json.loads(call("models", "--json").out)
    assert listed[0]["name"] == MODELS[0].name
    assert listed[0]["languages"] == list(MODELS[0].languages)


def test_pull(call: Call, tmp_path: Path) -> None:
    done = call("models", "pull", "parakeet", "gone/model", "some/body", "tiny", "nonsense")
    assert done.code == 2
    assert done.out.splitlines() == [
        str(tmp_path / "nvidia/parakeet-tdt-0.6b-v3"),
        str(tmp_path / "some/body"),
        "tiny is shipped with Conure",
    ]
    assert done.err.splitlines() == [
        "downloading parakeet-tdt-0.6b-v3 (2.5 GB)",
        "error: gone/model is not on disk and cannot be downloaded",
        "hint: pull it elsewhere",
        "downloading some/body",
        "error: no model named 'nonsense'",
        "hint: `conure models` lists those there are",
    ]
    assert call("models", "pull", "parakeet").err == ""
    assert call("models", "pull").code == 2


def test_info_of_a_model_that_is_not_on_disk(call: Call) -> None:
    done = call("models", "info", "nemotron")
    assert done.out.startswith("name        nemotron-speech-streaming-en-0.6b\n")
    assert "on disk     no\n" in done.out
    assert json.loads(call("models", "info", "some/body", "--json").out) == {"name": "some/body", "on disk": False}
    assert json.loads(call("models", "info", "--json").out)["name"] == "parakeet-tdt-0.6b-v3"


@pytest.mark.parametrize("verb", ["info", "convert"])
def test_an_unknown_model(call: Call, verb: str) -> None:
    done = call("models", verb, "parakeet-tdt-0.6")
    assert done.code == 2
    assert "error: no model named 'parakeet-tdt-0.6'" in done.err
    assert "hint: did you mean parakeet-tdt" in done.err


def test_invalid_arguments(call: Call) -> None:
    assert call("models", "remove").code == 2
    assert call("models", "convert").code == 2


def test_a_revision_is_part_of_a_name(tmp_path: Path) -> None:
    assert downloads.find_repository("parakeet@abc") == HubRepository("nvidia/parakeet-tdt-0.6b-v3", "abc")
    assert downloads.find_repository("some/body@v2") == HubRepository("some/body", "v2")
    assert downloads.find_repository("tiny") is None
    assert downloads.find_repository("nonsense") is None
    (tmp_path / "x.nemo").touch()
    assert downloads.find_repository(str(tmp_path / "x.nemo")) is None


def test_models_on_disk(hub_of_the_test: dict[str, Path]) -> None:
    hub_of_the_test["nvidia/parakeet-ctc-0.6b"] = Path("there")
    assert "parakeet-ctc-0.6b" in command.models_on_disk()
    assert "parakeet-ctc-1.1b" not in command.models_on_disk()


NEMO = Path(__file__).parent.parent / "data" / "parity" / "tdt.nemo"


def test_info_of_a_file(call: Call) -> None:
    facts = json.loads(call("models", "info", str(NEMO), "--json").out)
    assert (facts["name"], facts["family"], facts["parameters"]) == ("tdt", "parakeet-tdt", 108_582)
    assert "normalize        per_feature\n" in call("models", "info", str(NEMO)).out


def test_convert(call: Call, folder: Path) -> None:
    done = call("models", "convert", str(NEMO), "--dtype", "bfloat16")
    assert (done.code, done.out, done.err) == (0, "tdt\n", "")
    facts = json.loads(call("models", "info", "./tdt", "--json").out)
    assert (facts["name"], facts["stored_as"]) == ("tdt", ["bfloat16"])
    assert call("models", "convert", str(NEMO), "-o", "tdt").code == 0
    assert json.loads(call("models", "info", "./tdt", "--json").out)["stored_as"] == ["float32"]


def test_convert_leaves_other_folders_alone(call: Call, touch: Callable[..., None], folder: Path) -> None:
    touch("mine/thesis.tex", "file")
    for place in ("mine", "file"):
        done = call("models", "convert", str(NEMO), "-o", place)
        assert (done.code, done.out) == (2, "")
        assert "is not a Conure model" in done.err
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.tex"]


def test_convert_makes_the_onnx_form_too(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[Path, dict[str, object]]] = []
    monkeypatch.setattr(opening, "open_clip_runner", lambda model, **options: calls.append((model, options)))
    assert call("models", "convert", str(NEMO), "--onnx", "int8").code == 0
    (model, options) = calls[0]
    assert model == Path("tdt")
    assert (options["runner"], options["device"], options["cache"]) == (
        "onnx-int8",
        "cpu",
        tmp_path / "no cache/conure",
    )
