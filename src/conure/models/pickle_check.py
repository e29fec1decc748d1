"""Static check of a checkpoint's pickle before torch reads it; nothing of it is executed here.

torch's reader creates objects for each operation of the pickle, without a limit, and trusts the number of items that a
reference declares for an entry of the zip. So the number of operations is limited by the number of entries, functions
must be those that state dicts of tensors need, and each reference is compared with the size of its entry.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Mapping
from typing import Any

from conure.errors import BadCheckpoint
from conure.models.config_values import short_repr

__all__ = ["check_pickle"]

OPERATIONS, OPERATIONS_PER_TENSOR = 10_000, 200
"""Limit of operations: constant part and part per tensor; torch writes about 45 per tensor."""
MAX_DEPTH = 50
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
"""Operations that call functions which no GLOBAL names; torch writes none."""
PUSHES = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "GLOBAL"}
"""Operations that push their argument."""
PUTS, GETS = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}
CLOSING = {"TUPLE", "APPENDS", "LIST", "DICT", "SETITEMS", "ADDITEMS", "FROZENSET", "POP_MARK", "OBJ"}
"""Operations that pop all values since the last mark."""


def check_pickle(data: bytes, sizes: Mapping[str, int], name: str) -> None:
    """Raises BadCheckpoint if torch would read the pickle for too long, run code, or read beyond an entry.

    `sizes` are the bytes of the entries that hold tensors, by their keys.
    """
    limit, machine = OPERATIONS + OPERATIONS_PER_TENSOR * len(sizes), _PickleMachine(sizes, name)
    try:
        with warnings.catch_warnings(action="ignore"):  # about invalid escapes in strings of the file
            for index, (operation, argument, _) in enumerate(pickletools.genops(data)):
                if index >= limit:
                    reason = f"more than {limit:,} operations for {len(sizes):,} tensors"
                    raise BadCheckpoint(f"{name} has a pickle of {reason}")
                machine.check_operation(operation.name, argument)
    except BadCheckpoint:
        raise
    except ValueError as error:
        raise BadCheckpoint(f"{name} holds a truncated pickle: {short_repr(str(error))}") from error


class _PickleMachine:
    """Simulates the part of the stack that is known: the constants pushed since the last mark."""

    def __init__(self, sizes: Mapping[str, int], name: str) -> None:
        self.sizes, self.name = sizes, name
        self.memo: dict[int, Any] = {}
        self.values: list[Any] | None = None
        self.reference: list[Any] | None = None
        """The tuple that the previous operation created or stored in the memo."""
        self.depth = 0

    def check_operation(self, kind: str, argument: Any) -> None:
        reference, self.reference = self.reference, None
        if kind == "MARK":
            self._push_mark()
        elif kind in PUSHES or kind in GETS:
            self._push(self.memo.get(argument) if kind in GETS else argument, kind)
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

    def _push_mark(self) -> None:
        self.depth, self.values = self.depth + 1, []
        if self.depth > MAX_DEPTH:
            raise BadCheckpoint(f"{self.name} has a pickle that is nested more than {MAX_DEPTH} deep")

    def _push(self, value: Any, kind: str) -> None:
        if kind == "GLOBAL" and value not in FUNCTIONS and value not in ITEM_BYTES:
            called = short_repr(value.replace(" ", ".")).strip("'")
            raise BadCheckpoint(f"{self.name} holds a pickle that would run code ({called}): refused", HINT)
        if self.values is not None:
            self.values.append(value)

    def _check_reference(self, values: list[Any] | None) -> None:
        """A reference must be ("storage", type, key, device, count) with at most as many items as its entry has."""
        match values:
            case ["storage", str(kind), str(key), str(), int(count)] if kind in ITEM_BYTES:
                if not 0 <= count * ITEM_BYTES[kind] <= self.sizes.get(key, -1):
                    raise BadCheckpoint(
                        f"{self.name} claims {short_repr(count)} numbers in {short_repr(key)}, more than were stored"
                    )
            case _:
                raise BadCheckpoint(f"{self.name} holds a pickle that torch did not write: refused", HINT)
