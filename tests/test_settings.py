"""Settings: precedence of their sources, old names, and errors for invalid values."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conure import settings
from conure.cli import bench, serve
from conure.errors import BadOption
from conure.settings import RENAMED, Settings, config_file, load_settings, with_current_names

OLD = [("clips", "file_models", "a"), ("slots", "max_streams", 3), ("open_to_all", "allow_anonymous", True)]


@pytest.fixture(autouse=True)
def settings_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Path of the settings file, in a folder of the test; variables of this machine are removed."""
    for name in (*Settings.model_fields, *RENAMED):
        monkeypatch.delenv(f"CONURE_{name.upper()}", raising=False)
    monkeypatch.delenv("CONURE_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "conure" / "config.toml"
    file.parent.mkdir()
    settings._warn_of_old_name.cache_clear()
    yield file
    settings._warn_of_old_name.cache_clear()


def test_defaults() -> None:
    loaded = load_settings()
    assert (loaded.model, loaded.device, loaded.runner) == ("parakeet-tdt-0.6b-v3", "auto", "auto")
    assert (loaded.language, loaded.max_hours, loaded.threads) == (None, 12.0, None)
    assert loaded.cache == Path("~/.cache/conure").expanduser()


def test_flag_overrides_environment_overrides_file(settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_file.write_text('model = "file"\nmax_hours = 3\nlanguage = "de"\n')
    monkeypatch.setenv("CONURE_MODEL", "environment")
    monkeypatch.setenv("CONURE_MAX_HOURS", "2")
    loaded = load_settings(model="flag", max_hours=None)
    assert (loaded.model, loaded.max_hours, loaded.language) == ("flag", 2.0, "de")


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


def test_old_names_are_no_settings_and_current_ones_are() -> None:
    assert not RENAMED.keys() & Settings.model_fields.keys()
    assert set(RENAMED.values()) <= Settings.model_fields.keys()


@pytest.mark.parametrize(("old", "new", "value"), OLD)
def test_an_old_flag_works_with_a_warning(old: str, new: str, value: object, caplog: pytest.LogCaptureFixture) -> None:
    assert getattr(load_settings(**{old: value}), new) == value
    old_flag, new_flag = (f"--{name.replace('_', '-')}" for name in (old, new))
    assert caplog.messages == [f"{old_flag} is deprecated; use {new_flag}"]


@pytest.mark.parametrize(("old", "new", "value"), OLD)
@pytest.mark.parametrize("spell", [str.upper, str.lower])
def test_an_old_variable_works_with_a_warning(
    old: str, new: str, value: object, spell: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(spell)
    monkeypatch.setenv(spell(f"CONURE_{old}"), str(value))
    assert getattr(load_settings(), new) == value
    assert caplog.messages == [f"CONURE_{old.upper()} is deprecated; use CONURE_{new.upper()}"]


@pytest.mark.parametrize(("old", "new", "value"), OLD)
def test_an_old_key_of_the_file_works_with_a_warning(
    old: str, new: str, value: object, settings_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings_file.write_text(f"{old} = {value!r}".replace("True", "true"))
    assert getattr(load_settings(), new) == value
    assert caplog.messages == [f"{old} in {settings_file} is deprecated; use {new} in {settings_file}"]


@pytest.mark.parametrize("command", ["serve", "bench", "bench live"])
def test_help_pages_leave_old_flags_out(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "conure", *command.split(), "--help"], capture_output=True, text=True, check=True
    )
    assert "--max-streams" in done.stdout
    assert not any(f" --{old.replace('_', '-')} " in done.stdout for old in RENAMED)


def test_commands_take_old_flags() -> None:
    old = ["--live", "a", "--clips", "b", "--slots", "3"]
    _, given, *_ = serve.app.parse_args([*old, "--open-to-all", "--without", "riva", "--max-unidentified", "5"])
    loaded = serve._settings(given.arguments["options"])
    assert (loaded.live_models, loaded.file_models, loaded.max_streams) == ("a", "b", 3)
    assert (loaded.allow_anonymous, loaded.disable, loaded.max_unauthenticated) == (True, "riva", 5)
    _, given, *_ = bench.app.parse_args(old)
    loaded = bench._settings(given.arguments["options"], given.arguments["start"])
    assert (loaded.live_models, loaded.file_models, loaded.max_streams) == ("a", "b", 3)


def test_a_warning_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        load_settings(clips="a")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_current_names_come_first_within_a_source(settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(clips="old", file_models="new").file_models == "new"
    monkeypatch.setenv("CONURE_CLIPS", "old")
    monkeypatch.setenv("CONURE_FILE_MODELS", "new")
    assert load_settings().file_models == "new"
    settings_file.write_text('without = "riva"\ndisable = "page"\n')
    assert load_settings().disable == "page"


def test_an_old_name_keeps_the_place_of_its_source(settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_file.write_text('file_models = "file"\n')
    monkeypatch.setenv("CONURE_CLIPS", "environment")
    assert load_settings().file_models == "environment"
    assert load_settings(clips="flag").file_models == "flag"


def test_flags_that_were_not_given_are_left_out() -> None:
    assert with_current_names({"clips": None, "slots": 3, "model": "m"}) == {"max_streams": 3, "model": "m"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"device": "cuda:"}, "--device is 'cuda:'"),
        ({"runner": "fast"}, "--runner is 'fast'"),
        ({"max_hours": -1}, "--max-hours is -1"),
        ({"max_hours": float("nan")}, "--max-hours is nan"),
        ({"threads": 0}, "--threads is 0"),
        ({"slots": 0}, "--max-streams is 0"),
    ],
)
def test_an_invalid_flag_is_named(flags: dict[str, object], message: str) -> None:
    with pytest.raises(BadOption) as caught:
        load_settings(**flags)
    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["CONURE_MAX_HOURS", "CONURE_SLOTS"])
def test_an_invalid_variable_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "lots")
    with pytest.raises(BadOption, match=f"{name} is 'lots'"):
        load_settings()


def test_an_invalid_file_is_named(settings_file: Path) -> None:
    settings_file.write_text("threads = -2")
    with pytest.raises(BadOption, match=r"threads in .*config.toml is -2"):
        load_settings()
    settings_file.write_text("max_hour = 2")
    with pytest.raises(BadOption, match="unknown setting 'max_hour' in") as caught:
        load_settings()
    assert caught.value.hint == "did you mean max_hours?"
    settings_file.write_text("max_hours = = 2")
    with pytest.raises(BadOption, match="is not valid TOML"):
        load_settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().model = "another"  # type: ignore[misc]


def test_every_setting_has_a_description() -> None:
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
