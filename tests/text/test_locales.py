"""Languages are matched in every spelling of their names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.text.locales import Locale, find_locale, language_tag, parse_locale

KNOWN = ("ar", "de", "de-DE", "en-GB", "en-US", "enGB", "es", "es-ES", "es-US", "he-IL", "ja-JA", "ja-JP")
KNOWN += ("nb-NO", "nn-NO", "no", "no-NO", "zh-CN", "zh-TW")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("en-US", "en-US"),
        ("EN_us", "en-US"),
        (" en-us ", "en-US"),
        ("en-Latn-US", "en-US"),
        ("en_US.UTF-8", "en-US"),
        ("de_DE@euro", "de-DE"),
        ("en-US-u-ca-gregory", "en-US"),
        ("en-US-x-mine", "en-US"),
        ("de-DE-1996", "de-DE"),
        ("de-1996", "de"),
        ("engb", "enGB"),
        ("en-gb", "en-GB"),
        ("en", "en-GB"),
        ("de-AT", "de"),
        ("es-419", "es"),
        ("iw", "he-IL"),
        ("iw-IL", "he-IL"),
        ("ja", "ja-JA"),
        ("ja-jp", "ja-JP"),
        ("NO", "no"),
        ("no-no", "no-NO"),
        ("nb", "nb-NO"),
        ("zh", "zh-CN"),
        ("zh-Hans", "zh-CN"),
        ("zh-Hant", "zh-TW"),
        ("zh-Hant-TW", "zh-TW"),
        ("zh-cmn-Hans-CN", "zh-CN"),
        ("cmn-Hans-CN", "zh-CN"),
        ("ar-EG", "ar"),
        ("English", "en-GB"),
        (" german ", "de"),
        ("eng", "en-GB"),
        ("ger", "de"),
        ("deu-DE", "de-DE"),
        ("norwegian", "no"),
        ("Hebrew", "he-IL"),
    ],
)
def test_a_known_name_is_found(name: str, meant: str) -> None:
    assert find_locale(name, KNOWN) == meant


@pytest.mark.parametrize(
    "name", ["", "-", "x", "en-", "french", "fr", "he-US", "zh-HK", "en-US-GB", "e1-US", "en US", "__"]
)
def test_an_unknown_name_is_not_found(name: str) -> None:
    assert find_locale(name, KNOWN) is None


def test_parts_of_a_name() -> None:
    assert parse_locale("zh-Hant_TW") == Locale("zh", "hant", "tw")
    assert parse_locale("es-419") == Locale("es", "", "419")
    assert parse_locale("English") == parse_locale("eng") == Locale("en")
    assert parse_locale("klingon") is None


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("English", "en"),
        ("eng", "en"),
        (" en ", "en"),
        ("eng-US", "en-us"),
        ("en-US", "en-US"),
        ("tlh", "tlh"),
        ("", ""),
    ],
)
def test_names_and_long_codes_become_tags(name: str, tag: str) -> None:
    assert language_tag(name) == tag


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_can_be_requested(name: str) -> None:
    assert find_locale(name, KNOWN) in (*KNOWN, None)


@settings(deadline=None)
@given(st.sampled_from(KNOWN), st.sampled_from([str.upper, str.lower, str.title]), st.sampled_from("-_"))
def test_every_known_name_is_found_in_every_spelling(name: str, case, joint: str) -> None:
    found = find_locale(case(name.replace("-", joint)), KNOWN)
    assert found == name
