"""Generates the types of the TypeScript client from the messages of the native protocol.

python -m tools.typescript            # writes clients/typescript/src/protocol.ts
python -m tools.typescript --check    # exits with 1 if it is out of date
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect as types

from conure.client import protocol

TARGET = Path(__file__).parents[1] / "clients" / "typescript" / "src" / "protocol.ts"
HEADER = "// Made of the server's own messages (conure/client/protocol.py) by `python -m tools.typescript`.\n"
SIMPLE_TYPES: dict[type[types.Type], str] = {
    types.IntType: "number",
    types.FloatType: "number",
    types.StrType: "string",
    types.BytesType: "string",  # base64
    types.BoolType: "boolean",
    types.NoneType: "null",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.check:
        return int(TARGET.read_text() != rendered())
    TARGET.write_text(rendered())
    return 0


def rendered() -> str:
    """All messages and their parts, in the order of the module."""
    docstrings = _docstrings()
    parts = [_interface(kind, docstrings) for kind in _structs()]
    return "\n".join([HEADER, *parts, _union("FromClient"), _union("FromServer")])


def _structs() -> Iterator[type[msgspec.Struct]]:
    for name in protocol.__dict__:
        kind = getattr(protocol, name)
        if inspect.isclass(kind) and issubclass(kind, msgspec.Struct) and kind is not msgspec.Struct:
            yield kind


def _interface(kind: type[msgspec.Struct], docstrings: dict[tuple[str, str], str]) -> str:
    info: Any = types.type_info(kind)
    lines = [f"/** {docstring} */" for docstring in [docstrings.get((kind.__name__, ""))] if docstring]
    lines.append(f"export interface {kind.__name__} {{")
    if info.tag:
        lines.append(f'  type: "{info.tag}";')
    from_client = kind in get_args(protocol.FromClient) or kind in (protocol.Endpointing, protocol.Finals)
    for field in info.fields:
        if docstring := docstrings.get((kind.__name__, field.name)):
            lines.append(f"  /** {docstring} */")
        mark = "?" if not field.required and (from_client or kind.__struct_config__.omit_defaults) else ""
        lines.append(f"  {field.encode_name}{mark}: {_type(field.type)};")
    return "\n".join([*lines, "}\n"])


def _type(shape: Any) -> str:
    match shape:
        case types.UnionType(members):
            return " | ".join(dict.fromkeys(_type(member) for member in members))
        case types.ListType(item):
            inner = _type(item)
            return f"({inner})[]" if "|" in inner else f"{inner}[]"
        case types.LiteralType(values):
            return " | ".join(f'"{value}"' for value in values)
        case types.StructType(cls):
            return str(cls.__name__)
        case types.Metadata(type=inner):
            return _type(inner)
    return SIMPLE_TYPES[type(shape)]


def _union(name: str) -> str:
    members = " | ".join(kind.__name__ for kind in get_args(getattr(protocol, name)))
    return f"export type {name} = {members};\n"


def _docstrings() -> dict[tuple[str, str], str]:
    """Docstrings by class and field; the field is empty for the class itself."""
    docstrings = {}
    for cls in ast.parse(inspect.getsource(protocol)).body:
        if not isinstance(cls, ast.ClassDef):
            continue
        field = ""
        for node in cls.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                field = node.target.id
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                docstrings[cls.name, field] = " ".join(str(node.value.value).split())
    return docstrings


if __name__ == "__main__":
    sys.exit(main())
