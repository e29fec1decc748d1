"""Peak memory of tensors while something runs: counted, without an allocator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes"]


class LiveBytes(TorchDispatchMode):
    """Counts every tensor that is an argument or a result of an operation, except for those that existed before."""

    def __init__(self, there: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self._there: set[StorageWeakRef] = set()
        self.leave_out(there)
        self._live: dict[StorageWeakRef, int] = {}
        self.most = 0

    def leave_out(self, there: Iterable[Tensor]) -> None:
        self._there |= {StorageWeakRef(tensor.untyped_storage()) for tensor in there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._see((args, kwargs, out))
        return out

    def _see(self, values: Any) -> None:
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor) and (seen := StorageWeakRef(tensor.untyped_storage())) not in self._there:
                self._live[seen] = tensor.untyped_storage().nbytes()
        self._live = {seen: size for seen, size in self._live.items() if not seen.expired()}
        self.most = max(self.most, sum(self._live.values()))
