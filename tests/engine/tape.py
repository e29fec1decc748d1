"""A recorder for the CPU: what a CUDA graph does, with the same demands on what it records.

Operations are noted with the places of what they read and wrote, and played again on just those, by their `out` forms
where they have one: no line of the recorded function runs again, and no value that it once saw on the host is looked
at anew. What asks the device for a value, or makes tensors out of the host's numbers, cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Tape", "TapeRecorder", "places_of"]

ASKS = {"_local_scalar_dense", "nonzero", "equal", "item", "is_nonzero", "masked_select", "unique", "nonzero_static"}
"""A device would have to be waited for."""
FROM_HOST = {"lift_fresh", "lift_fresh_copy", "from_numpy"}
"""The values of a list or an array would have to be copied from where they no longer are."""


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Callable[[], None]] = []
        self.fresh: list[str] = []
        """Operations that make memory when they are played."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in ASKS | FROM_HOST or (name.startswith("index") and _has_mask(args)):
            raise AssertionError(f"{func} cannot be recorded")
        if name == "_to_copy" and kwargs.get("device") not in (None, torch.device("cpu")):
            raise AssertionError("a copy to another device cannot be recorded")
        result = func(*args, **kwargs)
        self._note(func, args, kwargs, result)
        return result

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        made = _tensors(result)
        writes = any(argument.alias_info is not None and argument.alias_info.is_write for argument in _arguments(func))
        if writes:
            self.steps.append(lambda: func(*args, **kwargs))
        elif _is_empty(func) or places_of(made) <= places_of((args, kwargs)):
            return  # room for what comes later, or a view of what is there
        elif (out := _out_form(func, len(made))) is not None:
            self.steps.append(lambda: out(*args, **kwargs, **dict(zip(_outs(out), made, strict=True))))
        else:
            self.fresh.append(str(func))
            self.steps.append(lambda: _copy(func(*args, **kwargs), made))

    def play(self) -> None:
        for step in self.steps:
            step()


class TapeRecorder:
    def __init__(self) -> None:
        self.tapes: list[Tape] = []

    def __call__(self, work: Callable[[], None], results: Sequence[Tensor] = ()) -> Callable[[], None]:
        work()  # constants are made in the first run
        tape = Tape()
        with tape:
            work()
        self.tapes.append(tape)
        return torch.inference_mode()(tape.play)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _has_mask(args: Any) -> bool:
    """As many values would be taken as the mask has, which a device would have to tell."""
    return any(tensor.dtype == torch.bool for tensor in _tensors(args[1:2]))


def places_of(tree: Any) -> set[int]:
    """Where the memory of all tensors in a tree begins."""
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(tree)}


def _arguments(func: Any) -> Any:
    return func._schema.arguments


def _is_empty(func: Any) -> bool:
    return func.overloadpacket.__name__.removeprefix("new_").startswith("empty")


def _outs(func: Any) -> list[str]:
    return [argument.name for argument in _arguments(func) if argument.is_out]


def _out_form(func: Any, count: int) -> Any:
    """The overload that takes the same arguments and room for the results."""
    wanted = [(argument.name, str(argument.type)) for argument in _arguments(func)]
    for overload in func.overloadpacket.overloads():
        form = getattr(func.overloadpacket, overload)
        given = [(argument.name, str(argument.type)) for argument in _arguments(form) if not argument.is_out]
        if len(_outs(form)) == count and given == wanted:
            return form
    return None


def _copy(result: Any, made: list[Tensor]) -> None:
    for place, value in zip(made, _tensors(result), strict=True):
        place.copy_(value)
