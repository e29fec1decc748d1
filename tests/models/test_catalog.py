"""The list of models, and the error for a misspelled name."""

from __future__ import annotations

import pytest

from conure.errors import UnknownModel
from conure.models.catalog import MODELS, find, names, resolve


def test_names_and_aliases_are_unique() -> None:
    assert len({name.lower() for name in names()}) == len(names())


@pytest.mark.parametrize("alias", ["parakeet", "whisper-1", "nova-3", "Parakeet", "nvidia/parakeet-tdt-0.6b-v3"])
def test_aliases_of_the_default_model(alias: str) -> None:
    assert resolve(alias).name == "parakeet-tdt-0.6b-v3"


def test_every_entry_is_complete() -> None:
    for model in MODELS:
        assert model.head in ("tdt", "rnnt", "ctc")
        assert model.repository in ("", f"nvidia/{model.name}")
        assert model.languages
        assert model.megabytes > 0


def test_languages() -> None:
    assert len(set(resolve("parakeet").languages)) == 25
    assert len(set(resolve("nemotron-3.5").languages)) == 40


def test_only_tiny_is_part_of_the_package() -> None:
    assert [model.name for model in MODELS if not model.repository] == ["tiny", "tiny-live"]


@pytest.mark.parametrize(("name", "meant"), [("parakeet-tdt-0.6b-v4", "parakeet-tdt-0.6b-v3"), ("tinny", "tiny")])
def test_the_hint_for_a_misspelled_name_is_a_similar_one(name: str, meant: str) -> None:
    with pytest.raises(UnknownModel, match=name) as caught:
        resolve(name)
    assert meant in (caught.value.hint or "")


def test_the_hint_for_an_unknown_name_is_the_command_that_lists_models() -> None:
    assert find("xyz") is None
    assert find("") is None
    with pytest.raises(UnknownModel) as caught:
        resolve("qqqqqq")
    assert "conure models" in (caught.value.hint or "")
