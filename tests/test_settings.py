"""Settings: who beats whom, and what is said about a value that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conure.errors import BadOption
from conure.settings import Settings, config_file, load_settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable of the machine counts; the settings file is in a folder of the test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CONURE_{name.upper()}", raising=False)
    monkeypatch.delenv("CONURE_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "conure" / "config.toml"
    file.parent.mkdir()
    return file


def test_defaults() -> None:
    settings = load_settings()
    assert (settings.model, settings.device, settings.runner) == ("parakeet-tdt-0.6b-v3", "auto", "auto")
    assert (settings.language, settings.max_hours, settings.threads) == (None, 12.0, None)
    assert settings.cache == Path("~/.cache/conure").expanduser()


def test_flag_beats_environment_beats_file(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_set.write_text('model = "file"\nmax_hours = 3\nlanguage = "de"\n')
    monkeypatch.setenv("CONURE_MODEL", "environment")
    monkeypatch.setenv("CONURE_MAX_HOURS", "2")
    settings = load_settings(model="flag", max_hours=None)
    assert (settings.model, settings.max_hours, settings.language) == ("flag", 2.0, "de")


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONURE_MODEL", "")
    assert load_settings().model == "parakeet-tdt-0.6b-v3"


def test_the_file_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONURE_CONFIG", str(tmp_path / "mine.toml"))
    with pytest.raises(BadOption, match=r"mine\.toml, which does not exist"):
        load_settings()
    (tmp_path / "mine.toml").write_text('device = "cuda:1"')
    assert load_settings().device == "cuda:1"
    assert config_file() == tmp_path / "mine.toml"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"device": "cuda:"}, "--device is 'cuda:'"),
        ({"runner": "fast"}, "--runner is 'fast'"),
        ({"max_hours": -1}, "--max-hours is -1"),
        ({"max_hours": float("nan")}, "--max-hours is nan"),
        ({"threads": 0}, "--threads is 0"),
    ],
)
def test_a_wrong_flag_is_named(flags: dict[str, object], said: str) -> None:
    with pytest.raises(BadOption) as caught:
        load_settings(**flags)
    assert caught.value.message == said
    assert caught.value.hint


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONURE_MAX_HOURS", "lots")
    with pytest.raises(BadOption, match="CONURE_MAX_HOURS is 'lots'"):
        load_settings()


def test_a_wrong_file_is_named(nothing_set: Path) -> None:
    nothing_set.write_text("threads = -2")
    with pytest.raises(BadOption, match=r"threads in .*config.toml is -2"):
        load_settings()
    nothing_set.write_text("max_hour = 2")
    with pytest.raises(BadOption, match="sets 'max_hour', which is no setting") as caught:
        load_settings()
    assert caught.value.hint == "did you mean max_hours?"
    nothing_set.write_text("max_hours = = 2")
    with pytest.raises(BadOption, match="is not TOML"):
        load_settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().model = "another"  # type: ignore[misc]


def test_every_knob_has_its_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONURE_CACHE", "~/there")
    assert load_settings().cache == Path("~/there").expanduser()


def test_importing_conure_loads_no_settings() -> None:
    code = "import sys, conure; print([m for m in ('pydantic', 'torch', 'numpy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
