"""The heads in ONNX Runtime emit the same tokens as in torch."""

from __future__ import annotations

import pytest
import torch

from conure.decoding.transducer import decode_transducer
from conure.engine.backends.cpu.onnx_heads import OnnxHeads
from conure.engine.convert.convert import convert
from conure.engine.convert.converted_folder import read_converted
from conure.models.network import Heads
from tests.parity.references import reference

FAMILIES = ["tdt", "rnnt", "tdt_ctc", "eou"]


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Heads, dict[str, Heads]]:
    """The heads in torch, and converted to each precision."""
    family = reference(request.param)
    converted: dict[str, Heads] = {}
    for precision in ("fp32", "int8"):
        folder = tmp_path_factory.mktemp(request.param) / precision
        convert(family.checkpoint, folder, precision)
        converted[precision] = OnnxHeads(read_converted(folder), threads=1)
    return family.network, converted


@torch.inference_mode()
def test_tokens_are_the_same(both: tuple[Heads, dict[str, Heads]], request: pytest.FixtureRequest) -> None:
    torch_heads, converted = both
    family = reference(request.node.callspec.params["both"])
    encoded, counts = family.network.encode(*family.mel)
    expected, _ = decode_transducer(torch_heads, encoded, counts)
    for precision, heads in converted.items():
        tokens, _ = decode_transducer(heads, encoded, counts)
        assert [[t.id for t in row] for row in tokens] == [[t.id for t in row] for row in expected], precision


@torch.inference_mode()
def test_scores_are_close(both: tuple[Heads, dict[str, Heads]]) -> None:
    torch_heads, converted = both
    generator = torch.Generator().manual_seed(0)
    config = torch_heads.config
    ids = torch.randint(0, config.vocabulary, (5, 3), generator=generator)
    steps = torch.randn(3, 4, config.joint_width, generator=generator)
    for precision, heads in converted.items():
        predicted, state = torch_heads.start(3)
        converted_predicted, converted_state = heads.start(3)
        for row in ids:
            predicted, state = torch_heads.advance(row, state)
            converted_predicted, converted_state = heads.advance(row, converted_state)
        expected, got = torch_heads.score(steps, predicted), heads.score(steps, converted_predicted)
        bound = 1e-5 if precision == "fp32" else 0.05
        assert float((got - expected).norm() / expected.norm()) < bound, precision


@torch.inference_mode()
def test_rows_are_independent(both: tuple[Heads, dict[str, Heads]]) -> None:
    _, converted = both
    for precision, heads in converted.items():
        steps = torch.randn(3, 2, heads.config.joint_width, generator=torch.Generator().manual_seed(1))
        steps[1:] *= 20
        predicted, state = heads.start(3)
        ids = torch.tensor([1, 2, 3])
        together, _ = heads.advance(ids, state)
        alone, _ = heads.advance(ids[:1], (state[0][:, :1], state[1][:, :1]))
        torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0, msg=precision)
        scores = heads.score(steps, predicted)
        torch.testing.assert_close(scores[:1], heads.score(steps[:1], predicted[:1]), atol=1e-5, rtol=0, msg=precision)
