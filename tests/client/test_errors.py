"""The list of errors is written once; tests/docs compares the guide with it."""

from __future__ import annotations

import re

from conure import client
from conure.client import errors


def test_every_error_is_exported_and_described() -> None:
    assert set(errors.__all__) <= set(client.__all__)
    for name in errors.__all__:
        assert re.search(rf"\b{name}\b", str(errors.__doc__))
