"""Requested languages against a model's languages and its prompt dictionary."""

from __future__ import annotations

import pytest

from conure.errors import UnsupportedLanguage
from conure.models.catalog import LOCALES, advertised_languages
from conure.service.languages import check_language, prompt_id_for
from tests.models.published import PROMPTS

DICTIONARY = tuple(PROMPTS.items())
MODEL = "nemotron-3.5-asr-streaming-0.6b"


def test_the_published_dictionary_has_the_languages_of_the_model_card() -> None:
    assert advertised_languages(DICTIONARY) == LOCALES
    assert advertised_languages(tuple(reversed(DICTIONARY))) == LOCALES


def test_another_dictionary_advertises_one_name_a_slot() -> None:
    told = {"auto": 9, "ja": 1, "ja-JA": 1, "ja-JP": 1, "xx-longer": 2, "xx": 2, "de": 3}
    assert advertised_languages(tuple(told.items())) == ("ja-JP", "xx-longer", "de")
    assert advertised_languages(()) == ()


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("spelled", [str, str.lower, str.upper, lambda name: name.replace("-", "_")])
def test_every_name_of_the_dictionary_is_taken(name: str, spelled) -> None:
    check_language(MODEL, spelled(name), LOCALES, DICTIONARY)
    assert prompt_id_for(MODEL, spelled(name), DICTIONARY) == PROMPTS[name]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("no", "no"),
        ("ja", "ja-JP"),
        ("ko-Kore-KR", "ko-KR"),
        ("hi_in", "hi-IN"),
        ("zh-Hant", "zh-TW"),
        ("zh-Hans-CN", "zh-CN"),
        ("he", "he-IL"),
        ("iw-IL", "he-IL"),
        ("en-AU", "en"),
        ("pt", "pt-PT"),
        ("vi", "vi-VN"),
        ("nn", "nn-NO"),
    ],
)
def test_every_form_of_a_name_means_its_slot(name: str, meant: str) -> None:
    check_language(MODEL, name, LOCALES, DICTIONARY)
    assert prompt_id_for(MODEL, name, DICTIONARY) == PROMPTS[meant]


@pytest.mark.parametrize("name", ["tlh", "xx-XX", "deutsch-DE", "he-US"])
def test_an_unknown_language_is_refused_with_the_supported_ones(name: str) -> None:
    with pytest.raises(UnsupportedLanguage) as caught:
        check_language(MODEL, name, LOCALES, DICTIONARY)
    assert "ja-JP" in str(caught.value.hint)
    assert "ja-JA" not in str(caught.value.hint)


def test_a_model_without_a_prompt_accepts_its_languages() -> None:
    check_language("tiny", "en-GB", ("en",))
    check_language("tiny", None, ("en",))
    check_language("unknown", "de", ())
    with pytest.raises(UnsupportedLanguage, match="'de'"):
        check_language("tiny", "de", ("en",))
    assert prompt_id_for("tiny", "en", ()) is None


def test_without_a_language_the_model_finds_out() -> None:
    assert prompt_id_for(MODEL, None, DICTIONARY) == PROMPTS["auto"]
    with pytest.raises(UnsupportedLanguage, match="requires a language"):
        prompt_id_for(MODEL, None, (("de", 1),))
