"""The step that updates ring buffers in place equals the reference, for rows of any age in any slot."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from conure.models.config import LEAD_FRAMES, AttentionContext, EncoderConfig
from conure.models.encoder_state import EncoderState
from conure.models.folded_encoder import FoldedEncoder
from conure.models.static_encoder import StaticEncoder
from tests.models.networks import STREAMING, network

PAST, SLOTS = 20, 5
BATCH_NORM = replace(STREAMING, norm="batch_norm", bias=True)


@pytest.mark.parametrize("encoder", [STREAMING, BATCH_NORM], ids=["layer norm", "batch norm"])
@pytest.mark.parametrize("chunk", [1, 2, 7])
@torch.inference_mode()
def test_rings_equal_shifted_caches(encoder: EncoderConfig, chunk: int) -> None:
    net = network(replace(encoder, contexts=(AttentionContext(PAST, chunk - 1),))).encoder
    live, rng = StaticEncoder(FoldedEncoder(net), PAST), random.Random(chunk)
    plain_state = EncoderState.allocate(net.config, SLOTS, PAST, net.pre_encode.out.weight)
    rings = live.allocate(SLOTS + 1)
    tables = net.positions(PAST + chunk - 1, 1 - chunk)
    age = torch.zeros(SLOTS, dtype=torch.long)
    for _ in range(60 // chunk):
        chosen = torch.tensor(rng.sample(range(SLOTS), rng.randint(1, SLOTS)))
        mel = torch.randn(len(chosen), 8 * chunk, encoder.features)
        least = [1 if age[row] else LEAD_FRAMES + 1 for row in chosen]
        frames = torch.tensor([rng.choice([8 * chunk, rng.randint(low, 8 * chunk)]) for low in least])
        before = plain_state.gather(chosen)
        expected, counts, after = net.step(mel, frames, before, tables)
        plain_state.scatter(chosen, after)
        # Two rows of padding share the scratch slot.
        pad = torch.tensor([SLOTS, SLOTS])
        padded = torch.cat([mel, torch.randn(2, 8 * chunk, encoder.features)])
        frames = torch.cat([frames, torch.zeros(2, dtype=torch.long)])
        ages = torch.cat([age[chosen], torch.zeros(2, dtype=torch.long)])
        # A flush of all rows does not change their state.
        tried = torch.randn_like(padded)
        live.step(tried, frames, torch.cat([chosen, pad]), ages, rings, torch.full_like(ages, SLOTS))
        got, got_counts = live.step(padded, frames, torch.cat([chosen, pad]), ages, rings)
        assert got_counts.tolist() == [*counts.tolist(), 0, 0]
        assert got.isfinite().all()
        for row, count in enumerate(counts.tolist()):
            torch.testing.assert_close(got[row, :count], expected[row, :count], atol=3e-5, rtol=0)
            # A stream ends with its first incomplete chunk; then its slot starts another one.
            slot = chosen[row]
            age[slot] = age[slot] + count if frames[row] == 8 * chunk else 0
            plain_state.started[slot] = bool(age[slot])
