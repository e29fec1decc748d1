"""The pickle of a checkpoint's zip, looked through before torch's reader takes it: nothing of it is run here.

torch's reader makes a few objects for each operation of the pickle, however many there are, and believes how many
numbers are said to be in an entry of the zip. So operations are counted against the entries there are, functions are
held against those that tables of tensors are made with, and each reference to an entry against its size.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Mapping
from typing import Any

from conure.errors import BadCheckpoint
from conure.models.config_values import short_repr

__all__ = ["check_pickle"]

OPERATIONS, OPERATIONS_EACH = 10_000, 200
"""That a pickle may have beside its tensors, and for each of them; torch writes about 45."""
DEPTH = 50
HINT = "take the file from its publisher"

ITEM_BYTES = {
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
}
FUNCTIONS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}
UNNAMED_CALLS = {"INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
"""Calls of functions that no GLOBAL names; torch writes none."""
PLAIN = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "GLOBAL"}
"""Operations that put their argument on the stack."""
PUTS, GETS = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}
CLOSING = {"TUPLE", "APPENDS", "LIST", "DICT", "SETITEMS", "ADDITEMS", "FROZENSET", "POP_MARK", "OBJ"}
"""Operations that take what was put on the stack since the last mark."""


def check_pickle(data: bytes, sizes: Mapping[str, int], name: str) -> None:
    """Raises BadCheckpoint where torch would take long over it, run something, or read beyond an entry.

    `sizes` are the bytes of the entries that hold tensors, by their keys.
    """
    most, look = OPERATIONS + OPERATIONS_EACH * len(sizes), _Look(sizes, name)
    try:
        with warnings.catch_warnings(action="ignore"):  # of wrong escapes in texts: they are the file's, not the code's
            for index, (operation, argument, _) in enumerate(pickletools.genops(data)):
                if index >= most:
                    many = f"more than {most:,} operations for {len(sizes):,} tensors"
                    raise BadCheckpoint(f"{name} has a pickle of {many}")
                look.at(operation.name, argument)
    except BadCheckpoint:
        raise
    except ValueError as error:
        raise BadCheckpoint(f"{name} holds a pickle that is cut off: {short_repr(str(error))}") from error


class _Look:
    """What is known of the stack: the values put there since the last mark, as long as they are plain."""

    def __init__(self, sizes: Mapping[str, int], name: str) -> None:
        self.sizes, self.name = sizes, name
        self.memo: dict[int, Any] = {}
        self.values: list[Any] | None = None
        self.reference: list[Any] | None = None
        """The tuple that the operation before made, or what was kept of it."""
        self.depth = 0

    def at(self, kind: str, argument: Any) -> None:
        reference, self.reference = self.reference, None
        if kind == "MARK":
            self._open()
        elif kind in PLAIN or kind in GETS:
            self._put(self.memo.get(argument) if kind in GETS else argument, kind)
        elif kind in PUTS:
            self.memo[argument] = self.values[-1] if self.values else None
            self.reference = reference
        elif kind in CLOSING:
            self.depth -= 1
            self.reference, self.values = (self.values if kind == "TUPLE" else None), None
        elif kind == "BINPERSID":
            self._check_reference(reference)
        elif kind in UNNAMED_CALLS:
            raise BadCheckpoint(f"{self.name} holds a pickle that would run code ({kind}): refused", HINT)
        else:
            self.values = None

    def _open(self) -> None:
        self.depth, self.values = self.depth + 1, []
        if self.depth > DEPTH:
            raise BadCheckpoint(f"{self.name} has a pickle that is nested more than {DEPTH} deep")

    def _put(self, value: Any, kind: str) -> None:
        if kind == "GLOBAL" and value not in FUNCTIONS and value not in ITEM_BYTES:
            called = short_repr(value.replace(" ", ".")).strip("'")
            raise BadCheckpoint(f"{self.name} holds a pickle that would run code ({called}): refused", HINT)
        if self.values is not None:
            self.values.append(value)

    def _check_reference(self, values: list[Any] | None) -> None:
        """That it is ("storage", type, key, device, count), with no more numbers than its entry has."""
        match values:
            case ["storage", str(kind), str(key), str(), int(count)] if kind in ITEM_BYTES:
                if not 0 <= count * ITEM_BYTES[kind] <= self.sizes.get(key, -1):
                    raise BadCheckpoint(
                        f"{self.name} claims {short_repr(count)} numbers in {short_repr(key)}, more than were stored"
                    )
            case _:
                raise BadCheckpoint(f"{self.name} holds a pickle that torch did not write: refused", HINT)
