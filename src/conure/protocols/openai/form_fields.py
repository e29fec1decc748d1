"""Fields of a form in all the ways in which clients write lists and objects.

x=a&x=b    x[]=a&x[]=b    x[0]=a&x[1]=b    x=["a", "b"]    x[type]=a&x[size]=1    x={"type": "a", "size": 1}
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, BinaryIO

import msgspec
from starlette.datastructures import FormData, UploadFile

from conure.protocols.openai.errors import BadField

__all__ = ["parse_fields", "uploaded_file"]

FILE = "file"
BRACKETS = re.compile(r"(.+?)\[([^\[\]]*)\]")


def uploaded_file(form: FormData) -> BinaryIO:
    """The recording, whatever its name says it is. Raises BadField."""
    found = form.getlist(FILE)
    if not found:
        raise BadField(FILE, "there is no recording", "send it as `file`")
    if len(found) > 1:
        raise BadField(FILE, f"there are {len(found)} recordings", "send one in each request")
    if not isinstance(found[0], UploadFile):
        raise BadField(FILE, "`file` is a text and no file", "send the bytes, with a name of a file")
    return found[0].file


def parse_fields(form: FormData, known: Collection[str], lists: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Values of the known fields, and the names of the others.

    Those of `lists` are lists; others are texts or objects. What is empty is as if it were not there. Raises BadField.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    unknown: dict[str, None] = {}
    for written, value in form.multi_items():
        if written == FILE:
            continue
        match = BRACKETS.fullmatch(written)
        name, inner = match.groups() if match else (written, "")
        if name not in known:
            unknown[written] = None
        elif isinstance(value, UploadFile):
            raise BadField(name, f"`{written}` is a file and no text", "send it as a text")
        elif value.strip():
            found.setdefault(name, []).append((inner, value))
    read = {name: _list(parts) if name in lists else _single(name, parts) for name, parts in found.items()}
    return read, list(unknown)


def _list(parts: list[tuple[str, str]]) -> list[Any]:
    values: list[Any] = []
    for _, value in parts:
        several = _json(value) if value.lstrip().startswith("[") else None
        values += several if isinstance(several, list) else [value]
    return values


def _single(name: str, parts: list[tuple[str, str]]) -> Any:
    if all(inner for inner, _ in parts):
        return dict(parts)
    if len(parts) > 1:
        raise BadField(name, f"`{name}` is there {len(parts)} times", "send it once")
    value = parts[0][1]
    there = _json(value) if value.lstrip().startswith("{") else None
    return there if isinstance(there, dict) else value


def _json(value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return None
