"""The tokens that a kernel finds without logits are those that the logits tell."""

from __future__ import annotations

import pytest
import torch

from conure.decoding.transducer import decode_transducer
from conure.fused.available import available
from tests.decoding.test_decoding import COUNTS, brief, encoded, heads


@pytest.mark.parametrize("durations", [(), (0, 1, 2, 3, 4)], ids=["rnnt", "tdt"])
@torch.inference_mode()
def test_scores_of_a_kernel_decode_to_the_same(durations: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    net, steps = heads(durations, 2.0), encoded()
    expected, _ = decode_transducer(net, steps, COUNTS)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert available(net.device)
    tokens, _ = decode_transducer(net, steps, COUNTS)
    for got, wanted in zip(tokens, expected, strict=True):
        assert brief(got) == brief(wanted)
        for mine, other in zip(got, wanted, strict=True):
            assert mine.log_probability == pytest.approx(other.log_probability, abs=1e-4)
            assert mine.confidence == pytest.approx(other.confidence, abs=1e-4)
