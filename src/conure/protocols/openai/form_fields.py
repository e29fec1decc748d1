"""Form fields, with all notations that clients use for lists and objects.

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

FILE_FIELD = "file"
BRACKETS = re.compile(r"(.+?)\[([^\[\]]*)\]")


def uploaded_file(form: FormData) -> BinaryIO:
    """Returns the uploaded recording; its file name is ignored. Raises BadField."""
    values = form.getlist(FILE_FIELD)
    if not values:
        raise BadField(FILE_FIELD, "the form has no file", "send the recording as `file`")
    if len(values) > 1:
        raise BadField(FILE_FIELD, f"the form has {len(values)} files", "send one per request")
    if not isinstance(values[0], UploadFile):
        raise BadField(FILE_FIELD, "`file` is not a file upload", "send the bytes with a file name")
    return values[0].file


def parse_fields(form: FormData, known: Collection[str], lists: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the values of known fields and the names of the others.

    Fields in `lists` are lists, others are strings or objects. Empty fields count as absent. Raises BadField.
    """
    values: dict[str, list[tuple[str, str]]] = {}
    unknown: dict[str, None] = {}
    for field, value in form.multi_items():
        if field == FILE_FIELD:
            continue
        match = BRACKETS.fullmatch(field)
        name, key = match.groups() if match else (field, "")
        if name not in known:
            unknown[field] = None
        elif isinstance(value, UploadFile):
            raise BadField(name, f"`{field}` is a file", "send it as a text field")
        elif value.strip():
            values.setdefault(name, []).append((key, value))
    read = {
        name: _parse_list(entries) if name in lists else _parse_single(name, entries)
        for name, entries in values.items()
    }
    return read, list(unknown)


def _parse_list(entries: list[tuple[str, str]]) -> list[Any]:
    values: list[Any] = []
    for _, value in entries:
        decoded = _decode_json(value) if value.lstrip().startswith("[") else None
        values += decoded if isinstance(decoded, list) else [value]
    return values


def _parse_single(name: str, entries: list[tuple[str, str]]) -> Any:
    if all(key for key, _ in entries):
        return dict(entries)
    if len(entries) > 1:
        raise BadField(name, f"`{name}` is given {len(entries)} times", "send it once")
    value = entries[0][1]
    decoded = _decode_json(value) if value.lstrip().startswith("{") else None
    return decoded if isinstance(decoded, dict) else value


def _decode_json(value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return None
