"""Names of the languages of all catalog models."""

from __future__ import annotations

from conure.models import catalog
from conure.protocols.openai.transcript_formats import language_code, language_name


def test_every_catalog_language_has_a_name() -> None:
    codes = {language_code(language) for model in catalog.MODELS for language in model.languages}
    assert len(codes) > 30
    assert all(language_name(code) != code for code in codes)


def test_region_is_ignored() -> None:
    assert [language_name(language_code(language)) for language in ("pt-BR", "en_US", "DE", "tlh")] == [
        "portuguese",
        "english",
        "german",
        "tlh",
    ]
