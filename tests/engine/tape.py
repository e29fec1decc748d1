"""A graph capturer for the CPU that behaves like CUDA graphs and has the same restrictions.

Operations are recorded with the tensors that they read and write and replayed on the same tensors, by their `out`
variants if there are any: no line of the captured function runs again, and values that were read on the host are not
read again. Operations that synchronise with the device or create tensors from host values cannot be captured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Tape", "TapeRecorder", "places_of"]

SYNCHRONISING = {
    "_local_scalar_dense",
    "nonzero",
    "equal",
    "item",
    "is_nonzero",
    "masked_select",
    "unique",
    "nonzero_static",
}
"""Operations that would synchronise with a device."""
FROM_HOST = {"lift_fresh", "lift_fresh_copy", "from_numpy"}
"""Operations that copy host values, which may not exist any more at the replay."""


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Callable[[], None]] = []
        self.fresh: list[str] = []
        """Operations that allocate memory at the replay."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in SYNCHRONISING | FROM_HOST or (name.startswith("index") and _has_mask(args)):
            raise AssertionError(f"{func} cannot be captured")
        if name == "_to_copy" and kwargs.get("device") not in (None, torch.device("cpu")):
            raise AssertionError("a copy to another device cannot be captured")
        result = func(*args, **kwargs)
        self._record(func, args, kwargs, result)
        return result

    def _record(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        outputs = _tensors(result)
        writes = any(argument.alias_info is not None and argument.alias_info.is_write for argument in _arguments(func))
        if writes:
            self.steps.append(lambda: func(*args, **kwargs))
        elif _is_empty(func) or places_of(outputs) <= places_of((args, kwargs)):
            return  # memory for later operations, or a view
        elif (out := _out_form(func, len(outputs))) is not None:
            self.steps.append(lambda: out(*args, **kwargs, **dict(zip(_outs(out), outputs, strict=True))))
        else:
            self.fresh.append(str(func))
            self.steps.append(lambda: _copy(func(*args, **kwargs), outputs))

    def replay(self) -> None:
        for step in self.steps:
            step()


class TapeRecorder:
    def __init__(self) -> None:
        self.tapes: list[Tape] = []

    def __call__(self, work: Callable[[], None], results: Sequence[Tensor] = ()) -> Callable[[], None]:
        work()  # cached constants are created in the first run
        tape = Tape()
        with tape:
            work()
        self.tapes.append(tape)
        return torch.inference_mode()(tape.replay)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _has_mask(args: Any) -> bool:
    """Indexing by a mask has a result of unknown size, which requires a synchronisation."""
    return any(tensor.dtype == torch.bool for tensor in _tensors(args[1:2]))


def places_of(tree: Any) -> set[int]:
    """Addresses of the storage of all tensors in a tree."""
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(tree)}


def _arguments(func: Any) -> Any:
    return func._schema.arguments


def _is_empty(func: Any) -> bool:
    return func.overloadpacket.__name__.removeprefix("new_").startswith("empty")


def _outs(func: Any) -> list[str]:
    return [argument.name for argument in _arguments(func) if argument.is_out]


def _out_form(func: Any, count: int) -> Any:
    """The overload with the same arguments and `out` tensors for the results."""
    signature = [(argument.name, str(argument.type)) for argument in _arguments(func)]
    for overload in func.overloadpacket.overloads():
        form = getattr(func.overloadpacket, overload)
        inputs = [(argument.name, str(argument.type)) for argument in _arguments(form) if not argument.is_out]
        if len(_outs(form)) == count and inputs == signature:
            return form
    return None


def _copy(result: Any, outputs: list[Tensor]) -> None:
    for target, value in zip(outputs, _tensors(result), strict=True):
        target.copy_(value)
