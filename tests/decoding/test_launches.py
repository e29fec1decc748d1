"""With fused kernels an iteration of the decoders is a dozen launches, products included, for every window.

Launches of a GPU are counted on a CPU: kernels, which are interpreted, and torch's operations, each of which is one
launch unless its results are views.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from conure.decoding.label_looping import LabelLooping
from conure.decoding.transducer import TransducerState
from tests.decoding.test_decoding import COUNTS, encoded, heads
from tests.engine.tape import places_of

STEP = {
    "joint_step_kernel": 1,
    "best_tokens_kernel": 1,
    "join_shares_kernel": 1,
    "label_step_kernel": 1,
    "embedding": 1,
    "matmul": 4,
    "lstm_step_kernel": 2,
    "addmm": 1,
}
"""Of a prediction network of two layers."""


class Launches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        writes = any(argument.is_out or name.endswith("_") for argument in func._schema.arguments)
        if writes or not ("empty" in name or places_of(result) <= places_of(args)):
            self.counted[name] += 1
        return result


@contextmanager
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    # Triton decides at import whether it compiles or interprets.
    from triton.runtime.interpreter import GridExecutor  # noqa: PLC0415

    mode, interpret = Launches(), GridExecutor.__call__

    def launch(self: Any, *args: Any, **kwargs: Any) -> None:
        mode.counted[self.fn.__name__] += 1
        with _disable_current_modes():
            interpret(self, *args, **kwargs)

    with monkeypatch.context() as patch, mode:
        patch.setattr(GridExecutor, "__call__", launch)
        yield mode.counted


@pytest.mark.parametrize("durations", [(), (0, 1, 2, 3, 4)], ids=["rnnt", "tdt"])
@pytest.mark.parametrize("window", [1, 4])
@torch.inference_mode()
def test_an_iteration_is_a_dozen_launches(
    durations: tuple[int, ...], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    net = heads(durations, 2.0).requires_grad_(False)
    loop = LabelLooping(net, 4, 40, 3, window)
    loop.begin(encoded(), COUNTS, TransducerState.start(net, 4))
    loop.advance()  # constants are made in the first run
    with launches(monkeypatch) as counted:
        loop.advance()
    assert counted == {name: 3 * count for name, count in STEP.items()} | {"lt": 1, "any": 1}
