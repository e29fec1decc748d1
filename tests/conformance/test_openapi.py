"""The server conforms to its OpenAPI document; schemathesis generates requests from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conformance.speech import SAID, WAV
from tests.protocols.servers import Server
from tests.waiting import PATIENCE

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 15
"""Generated requests per operation."""


@pytest.fixture(scope="session")
def document(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.base}/openapi.json")


def test_requests_of_the_document(document: Any, subtests: Any) -> None:
    """Valid and invalid requests according to the document."""
    for result in document.get_all_operations():
        operation = result.ok()
        with subtests.test(operation.label):
            _send(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
        with (
            subtests.test(f"{operation.label}, invalid"),
            suppress(Unsatisfiable),
        ):  # operations without invalid requests
            _send(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))


def _send(cases: SearchStrategy[Case]) -> None:
    @given(case=cases)
    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def send(case: Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=PATIENCE)

    send()


def test_recordings_match_the_document(document: Any) -> None:
    """Generated audio contains no speech, so responses with a transcript are checked here."""
    results = []
    for operation, media_type, form in _uploads(document):
        body = form | {"file": WAV.read_bytes()} if form is not None else WAV.read_bytes()
        case = operation.Case(body=body, media_type=media_type)
        response = case.call_and_validate(checks=CHECKS, timeout=PATIENCE)
        results.append((operation.label, response.status_code, SAID in response.text))
    assert results
    assert [result for result in results if result[1:] != (200, True) and "translations" not in result[0]] == []


def _uploads(document: Any) -> Iterator[tuple[Any, str, dict[str, Any] | None]]:
    """Operations that take a recording, with the media type and, for forms, the other fields."""
    for result in document.get_all_operations():
        operation = result.ok()
        for body in operation.body:
            schema = body.definition.get("schema", {})
            if schema.get("format") == "binary":
                yield operation, body.media_type, None
            elif "file" in schema.get("properties", {}):
                yield operation, body.media_type, {"model": "tiny"}
