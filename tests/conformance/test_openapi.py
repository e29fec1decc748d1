"""The server does what its OpenAPI document says, whatever is sent: schemathesis makes requests of the document."""

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
"""Of an operation, whatever else comes with it."""


@pytest.fixture(scope="session")
def document(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.base}/openapi.json")


def test_requests_of_the_document(document: Any, subtests: Any) -> None:
    """What the document allows, and what it does not."""
    for found in document.get_all_operations():
        operation = found.ok()
        with subtests.test(operation.label):
            _send(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
        with subtests.test(f"{operation.label}, not as it says"), suppress(Unsatisfiable):  # where nothing can be wrong
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
    """What is made up is no speech, so transcripts are compared with their description here."""
    said = []
    for operation, kind, form in _uploads(document):
        body = form | {"file": WAV.read_bytes()} if form is not None else WAV.read_bytes()
        case = operation.Case(body=body, media_type=kind)
        answer = case.call_and_validate(checks=CHECKS, timeout=PATIENCE)
        said.append((operation.label, answer.status_code, SAID in answer.text))
    assert said
    assert [one for one in said if one[1:] != (200, True) and "translations" not in one[0]] == []


def _uploads(document: Any) -> Iterator[tuple[Any, str, dict[str, Any] | None]]:
    """Operations that take a recording, the media type for it, and a form's other fields where it is one."""
    for found in document.get_all_operations():
        operation = found.ok()
        for body in operation.body:
            schema = body.definition.get("schema", {})
            if schema.get("format") == "binary":
                yield operation, body.media_type, None
            elif "file" in schema.get("properties", {}):
                yield operation, body.media_type, {"model": "tiny"}
