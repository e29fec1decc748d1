"""All exceptions are exported and documented."""

from __future__ import annotations

import re
from pathlib import Path

from conure import client
from conure.client import errors

PAGE = (Path(__file__).parent.parent.parent / "docs" / "client.md").read_text()


def test_every_error_is_exported_and_documented() -> None:
    assert set(errors.__all__) <= set(client.__all__)
    assert set(re.findall(r"^\| `([A-Z]\w+)` \|", PAGE, re.M)) | {"ClientError"} == set(errors.__all__)
    for name in errors.__all__:
        assert re.search(rf"\b{name}\b", str(errors.__doc__))
