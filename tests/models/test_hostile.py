"""Untrusted checkpoints: with any content they load or are refused with one line that names the problem."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conure.errors import BadCheckpoint, ConureError
from conure.models import conure_file
from conure.models.loader import read_checkpoint
from tests.models.published import MODELS, PROMPTS
from tests.models.publishing import change_config, write_archive

DATA = Path(__file__).parents[1] / "data" / "parity"
DEEP: list[Any] = []
for _ in range(500):
    DEEP = [DEEP]
NASTY: list[Any] = [None, True, 0, -1, 2**31, 2**63, 10**400, float("nan"), float("-inf"), 1e308, 0.5, "", "x", "1"]
NASTY += ["\ud800", "a" * 10_000, "\n\x1b[31m", [], [[]], [None], [-1], ["x"], [2**200], [1] * 10_000, DEEP, {}]
NASTY += [{"a": {"b": None}}, {"\ud800": 1}, {"en": -1}, {"en": 2**70}, {"auto": "1"}, {"": 0}]
FAST = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def refused(path: Path) -> str | None:
    """The error that refuses a checkpoint; None if it loads."""
    try:
        read_checkpoint(path)
    except ConureError as error:
        message = f"{error} {error.hint or ''}"
        assert message.isprintable(), message
        assert len(message) < 500, message
        message.encode()
        return message
    return None


def keys(settings: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all values at any depth, except those of long tables."""
    for key, value in settings.items():
        yield (*before, key)
        if isinstance(value, dict) and len(value) < 50:
            yield from keys(value, (*before, key))


def with_value(settings: dict[str, Any], key: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = part = copy.deepcopy(settings)
    for name in key[:-1]:
        part = part[name]
    part[key[-1]] = value
    return changed


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each format, for changes that are undone."""
    place = tmp_path_factory.mktemp("folders")
    names = ("hf_parakeet_tdt", "hf_nemotron3_5_asr", "hf_parakeet_ctc")
    found = {name: Path(shutil.copytree(DATA / name, place / name)) for name in names}
    for name in ("unified", "nemotron_prompt"):
        conure_file.save(read_checkpoint(DATA / f"{name}.nemo"), place / name)
        found[name] = place / name
    return found


def changes(places: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Some offsets and the bytes to write there."""
    return st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=5)


@contextlib.contextmanager
def replaced_file(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


@FAST
@given(st.data())
def test_any_value_at_any_path_of_json(folders: dict[str, Path], data: st.DataObject) -> None:
    folder = folders[data.draw(st.sampled_from(sorted(folders)))]
    files = [name for name in ("config.json", "processor_config.json", "tokenizer.json") if (folder / name).exists()]
    file = folder / data.draw(st.sampled_from(files))
    settings = json.loads(file.read_text())
    key = data.draw(st.sampled_from(list(keys(settings))))
    changed = with_value(settings, key, data.draw(st.sampled_from(NASTY)))
    with replaced_file(file, json.dumps(changed).encode()):
        refused(folder)


@FAST
@given(st.data())
def test_any_bytes_in_any_file(folders: dict[str, Path], data: st.DataObject) -> None:
    folder = folders[data.draw(st.sampled_from(sorted(folders)))]
    file = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(file.read_bytes())
    for place, byte in data.draw(changes(st.integers(0, 5_000))):
        content[min(place, len(content) - 1)] = byte
    with replaced_file(file, bytes(content[: data.draw(st.sampled_from([None, None, 1, 100, -1, -100]))])):
        refused(folder)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    packed = (DATA / "tdt_ctc_global.nemo").read_bytes()
    return gzip.decompress(packed)


@FAST
@given(st.data())
def test_any_bytes_in_an_archive(archive: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(archive)
    last = len(content) - 1
    places = st.one_of(st.integers(0, 3_000), st.integers(0, last), st.integers(last - 30_000, last))
    for place, byte in data.draw(changes(places)):
        content[place] = byte
    path = tmp_path_factory.mktemp("archive") / "model.nemo"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize(
    ("file", "key", "value", "named"),
    [
        ("hf_parakeet_tdt/config.json", "durations", None, "config.json: durations is None"),
        ("hf_parakeet_tdt/config.json", "model_type", ["parakeet_tdt"], "model_type is ['parakeet_tdt']"),
        ("hf_parakeet_tdt/config.json", "max_symbols_per_step", 10**9, "max_symbols_per_step is 1000000000"),
        ("hf_parakeet_tdt/config.json", "encoder_config.scale_input", "no", "encoder_config.scale_input is 'no'"),
        ("hf_parakeet_tdt/config.json", "encoder_config.num_mel_bins", -5, "encoder_config.num_mel_bins is -5"),
        ("hf_parakeet_tdt/processor_config.json", "feature_extractor", [1], "config.json: feature_extractor"),
        ("hf_parakeet_tdt/processor_config.json", "feature_extractor.preemphasis", float("nan"), "preemphasis of"),
        ("hf_parakeet_tdt/processor_config.json", "feature_extractor.n_fft", 10**12, "n_fft of the front-end is"),
        ("hf_nemotron3_5_asr/processor_config.json", "supported_num_lookahead_tokens", 3, "lookahead_tokens is 3"),
        ("hf_nemotron3_5_asr/config.json", "encoder_config.sliding_window", 2**40, "sliding_window is"),
        ("hf_nemotron3_5_asr/processor_config.json", "prompt_dictionary", ["en"], "prompt_dictionary is ['en']"),
        ("hf_nemotron3_5_asr/processor_config.json", "prompt_dictionary.en", "0", "prompt_dictionary.en is '0'"),
        ("unified/config.json", "network.max_symbols", -1, "network.max_symbols in config.json is -1"),
        ("unified/config.json", "network.mel.log_guard", float("inf"), "mel.log_guard in config.json is inf"),
        ("unified/config.json", "network.encoder.contexts", [{"left": 2**40}], "contexts.left in config.json is"),
        ("unified/config.json", "languages", ["\ud800"], "languages in config.json is"),
    ],
)  # fmt: skip
def test_file_key_and_value_are_named(folders: dict[str, Path], file: str, key: str, value: Any, named: str) -> None:
    folder, _, name = file.partition("/")
    path = folders[folder] / name
    settings = with_value(json.loads(path.read_text()), tuple(key.split(".")), value)
    with replaced_file(path, json.dumps(settings).encode()):
        assert named in (refused(path.parent) or "")
    assert refused(path.parent) is None


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe{}",
        b"null",
        b"[]",
        b'"text"',
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b"1" * 5_000,
        b'{"model_type": ' + b"9" * 5_000 + b"}",
        b"NaN",
        b"",
        b"\x00",
    ],
)
@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer.json", "model.safetensors"])
def test_files_with_other_content_are_named(folders: dict[str, Path], file: str, text: bytes) -> None:
    folder = folders["hf_parakeet_tdt"]
    with replaced_file(folder / file, text):
        assert file.partition(".")[0] in (refused(folder) or "")


CHANGES: dict[str, tuple[str, Any]] = {
    "a context without end": ("encoder.att_context_size", [2**40, 1]),
    "contexts without end": ("encoder.att_context_size", [[70, 1] for _ in range(2_000)]),
    "a context of texts": ("encoder.att_context_size", ["70", "1"]),
    "a window of all": ("encoder.att_context_size", [10**5, 10**5]),
    "global steps without end": ("encoder.global_tokens", 10**9),
    "global steps without spacing": ("encoder.global_tokens_spacing", 0),
    "global steps that are no number": ("encoder.global_tokens", float("nan")),
    "a word for a switch": ("encoder.xscaling", "false"),
    "an object for a name": ("encoder._target_", {"a": 1}),
    "a list for a name": ("target", ["x"]),
    "a front-end of gigabytes": ("preprocessor.n_fft", 2**40),
    "no window": ("preprocessor.window_size", float("inf")),
    "a guard that is no number": ("preprocessor.log_zero_guard_value", []),
    "durations of texts": ("decoding.durations", ["a"]),
    "durations without end": ("decoding.durations", [2**62] * 5),
    "symbols without end": ("decoding.greedy.max_symbols", 10**9),
    "no tokenizer": ("tokenizer.model_path", {"a": 1}),
    "another tokenizer": ("tokenizer.type", {"a": [1]}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_of_an_archive_is_named(change: str, tmp_path: Path) -> None:
    path, value = CHANGES[change]
    *parents, last = path.split(".")

    def set_value(settings: dict[str, Any]) -> None:
        for parent in parents:
            settings = settings.setdefault(parent, {})
        settings[last] = value

    archive = write_archive(MODELS["parakeet-tdt_ctc-1.1b"], tmp_path / "model.nemo")
    message = refused(change_config(archive, set_value)) or ""
    assert message.startswith("model.nemo: ")
    assert path in message or last.removesuffix("_path").removesuffix("_size") in message


def test_a_value_that_repeats_itself_costs_no_time(tmp_path: Path) -> None:
    """A list of two lists of two lists ... that YAML writes in a few lines."""
    shared: list[Any] = []
    for _ in range(30):
        shared = [shared, shared]
    for path in ("labels", "tokenizer", "encoder"):
        archive = write_archive(MODELS["parakeet-ctc-0.6b"], tmp_path / "model.nemo")
        changed = change_config(archive, lambda settings, path=path: settings.update({path: shared, "target": shared}))
        with pytest.raises(BadCheckpoint, match=r"target|tokenizer|encoder"):
            read_checkpoint(changed)


NO_DICTIONARIES: list[Any] = [{"en": -1}, {"en": 200}, {"en": "0"}, {"": 0}, {"e\n": 0}, ["en"], PROMPTS | {"no": None}]


@pytest.mark.parametrize("names", NO_DICTIONARIES)
def test_a_dictionary_without_slots_is_refused(names: Any, tmp_path: Path) -> None:
    def change(settings: dict[str, Any]) -> None:
        settings["model_defaults"]["prompt_dictionary"] = names

    model = replace(MODELS["nemotron-3.5-asr-streaming-0.6b"], vocabulary=1024)
    archive = write_archive(model, tmp_path / "m.nemo")
    with pytest.raises(BadCheckpoint, match=r"prompt_dictionary|language prompt"):
        read_checkpoint(change_config(archive, change))
