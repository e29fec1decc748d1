"""Local attention with global steps equals the dense formula, for single clips and for batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conure.models.attention import Attention, sinusoids
from conure.models.config import AttentionContext, EncoderConfig
from conure.models.conformer import Encoder
from conure.models.folded_encoder import FoldedEncoder
from tests.models.networks import OFFLINE, mel, network

KINDS = {
    "one": (1, 1, False),
    "one, separate": (1, 1, True),
    "some": (3, 5, False),
    "some, separate": (4, 3, True),
    "more than the shortest clip has": (30, 2, False),
}


def config(kind: str, window: int = 4) -> EncoderConfig:
    tokens, spacing, separate = KINDS[kind]
    contexts = (AttentionContext(window, window),)
    settings = {"global_tokens": tokens, "global_spacing": spacing, "global_separate": separate}
    return replace(OFFLINE, local=True, contexts=contexts, **settings)


def dense(module: Attention, x: Tensor, window: int) -> Tensor:
    """One clip x [T, D] with scores in one matrix: the window of each step, then global steps as further columns."""
    steps, heads, width = len(x), module.heads, module.head_width

    def by_head(layer: torch.nn.Linear) -> Tensor:
        return layer(x).view(steps, heads, width).transpose(0, 1)

    query, key, value = (by_head(layer) for layer in (module.linear_q, module.linear_k, module.linear_v))
    separate = module.global_q is not None
    own = (module.global_q, module.global_k, module.global_v) if separate else None
    global_query, global_key, global_value = (by_head(layer) for layer in own) if own else (query, key, value)
    places = list(module.global_steps(steps))

    distance = torch.arange(steps)[:, None] - torch.arange(steps)[None]
    table = module.positions(sinusoids(steps - 1, 1 - steps, heads * width, x))  # of steps - 1 .. 1 - steps
    placed = table[:, steps - 1 - distance]  # [h, T, T, d]
    near = (query + module.pos_bias_u[:, None]) @ key.transpose(1, 2)
    near = near + torch.einsum("htd,htsd->hts", query + module.pos_bias_v[:, None], placed)
    near = near.masked_fill(distance.abs() > window, -torch.inf)
    beside = global_query @ global_key[:, places].transpose(1, 2)
    weights = (torch.cat([near, beside], 2) / width**0.5).softmax(2)
    mixed = weights @ torch.cat([value, value[:, places]], 1)

    for head in range(heads):
        for token, place in enumerate(places):
            which = head * len(places) + token  # the order of queries in NeMo
            query_of = global_query[which % heads, places[which // heads]]
            mixed[head, place] = (query_of @ global_key[head].T / width**0.5).softmax(0) @ global_value[head]
    return module.linear_out(mixed.transpose(0, 1).flatten(1))


@pytest.mark.parametrize("steps", [1, 2, 4, 9, 50])
@pytest.mark.parametrize("window", [1, 4, 64])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_attention_equals_the_dense_formula(kind: str, window: int, steps: int) -> None:
    module = network(config(kind, window)).encoder.layers[0].self_attn
    x = torch.randn(1, steps, OFFLINE.width, generator=torch.Generator().manual_seed(steps))
    positions = module.positions(sinusoids(2 * window - 1, 1 - 2 * window, OFFLINE.width, x))
    got = module.local(x, positions, torch.ones(1, steps, dtype=torch.bool), window)
    torch.testing.assert_close(got[0], dense(module, x[0], window), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "form", [Encoder.__call__, lambda net, *given: FoldedEncoder(net)(*given)], ids=["plain", "folded"]
)
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_clip_does_not_depend_on_its_batch(kind: str, form) -> None:
    encoder = network(config(kind)).encoder
    whole, lengths = mel([411, 200, 97, 8, 1])
    got, counts = form(encoder, whole, lengths)
    assert got.isfinite().all()
    for row, length in enumerate(lengths.tolist()):
        alone, _ = encoder(whole[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(got[row, : counts[row]], alone[0], atol=2e-5, rtol=0)


@torch.inference_mode()
def test_the_first_step_reaches_the_whole_of_a_long_clip() -> None:
    """Beyond the combined windows of all layers, in a clip of two minutes."""
    reaching, local = (network(replace(config("one"), global_tokens=tokens)).encoder for tokens in (1, 0))
    whole, lengths = mel([12_000])
    changed = whole.clone()
    changed[:, :8] += 1
    for encoder, reaches in ((reaching, True), (local, False)):
        before, after = (encoder(given, lengths, chunk_steps=100)[0] for given in (whole, changed))
        assert (not torch.equal(before[:, -50:], after[:, -50:])) == reaches


def test_every_projection_is_trained() -> None:
    encoder = network(config("some, separate")).encoder
    encoder(*mel([200]))[0].square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


@torch.inference_mode()
def test_a_batch_in_half_precision_has_no_nan() -> None:
    encoder = network(config("some")).encoder.bfloat16()
    whole, lengths = mel([300, 1])
    assert encoder(whole.bfloat16(), lengths)[0].isfinite().all()
