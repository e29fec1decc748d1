"""FastConformer: the encoder of every Parakeet and Nemotron speech model.

`forward` runs whole clips, `step` one chunk of cache-aware streams. Both use the same modules, and the
results chunk by chunk equal those of the whole clip. Parameters have NeMo's names.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conure.audio.features import frame_mask
from conure.models.attention import Attention, sinusoids
from conure.models.config import LONG_CONTEXT, MAX_FULL_ATTENTION_STEPS, AttentionContext, EncoderConfig
from conure.models.convolution import Convolution
from conure.models.encoder_state import EncoderState
from conure.models.preemptible import Preemptible, run_to_end
from conure.models.subsampling import Subsampling

__all__ = ["Encoder", "SpeakerActivities"]

SpeakerActivities = tuple[Tensor, Tensor]
"""Speech activity of the target speaker and of all others, each [B, S] in [0, 1], one value per encoder step."""


class FeedForward(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.linear1 = nn.Linear(config.width, config.width * config.expansion, bias=config.bias)
        self.linear2 = nn.Linear(config.width * config.expansion, config.width, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.dropout(F.silu(self.linear1(x))))
        return out


class Layer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward; a norm before each and one after."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm_feed_forward1 = nn.LayerNorm(config.width)
        self.feed_forward1 = FeedForward(config)
        self.norm_self_att = nn.LayerNorm(config.width)
        self.self_attn = Attention(config)
        self.norm_conv = nn.LayerNorm(config.width)
        self.conv = Convolution(config)
        self.norm_feed_forward2 = nn.LayerNorm(config.width)
        self.feed_forward2 = FeedForward(config)
        self.norm_out = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor, keep: Tensor, valid: Tensor) -> Tensor:
        """x [B, T, D] of whole clips; shapes as in Attention and Convolution."""
        x = self._before(x)
        x = x + self.dropout(self.self_attn(self.norm_self_att(x), positions, keep))
        return self._after(x + self.dropout(self.conv(self.norm_conv(x), valid)))

    def positions(self, encoding: Tensor) -> Tensor:
        """Sinusoids [P, D] -> their projection by this layer's attention, [h, P, d]."""
        return self.self_attn.positions(encoding)

    def local(self, x: Tensor, positions: Tensor, valid: Tensor, window: int) -> Tensor:
        """Like `forward`, with attention over `window` steps to either side."""
        x = self._before(x)
        x = x + self.dropout(self.self_attn.local(self.norm_self_att(x), positions, valid, window))
        return self._after(x + self.dropout(self.conv(self.norm_conv(x), valid)))

    def step(
        self, x: Tensor, positions: Tensor, keep: Tensor, valid: Tensor, past: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """One chunk: x [B, C, D]; `past` and the returned caches are keys, values [B, h, L, d], convolution."""
        x = self._before(x)
        query, key, value = self.self_attn.project(self.norm_self_att(x))
        key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        x = x + self.self_attn.attend(query, key, value, positions, keep)
        mixed, convolution = self.conv.step(self.norm_conv(x), valid, past[2])
        chunk = query.shape[2]
        return self._after(x + mixed), (key[:, :, chunk:], value[:, :, chunk:], convolution)

    def _before(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.dropout(0.5 * self.feed_forward1(self.norm_feed_forward1(x)))
        return out

    def _after(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm_out(x + self.dropout(0.5 * self.feed_forward2(self.norm_feed_forward2(x))))
        return out


class SpeakerKernel(nn.Module):
    """Adds the output of a small network over the steps of one speaker (multitalker models)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, x: Tensor, activity: Tensor) -> Tensor:
        """x [B, S, D], activity [B, S] -> [B, S, D]."""
        added: Tensor = self.linear2(F.relu(self.linear1(x * activity[..., None])))
        return x + added


class Encoder(nn.Module):
    """Log-mel to encoder steps of 80 ms."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.pre_encode = Subsampling(config)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        names = [str(index) for index in config.speaker_layers]
        self.speaker_kernels = nn.ModuleDict({name: SpeakerKernel(config.width) for name in names})
        self.background_kernels = nn.ModuleDict({name: SpeakerKernel(config.width) for name in names})

    def positions(self, first: int, last: int) -> list[Tensor]:
        """Each layer's projection of the distances first .. last (falling), [h, first - last + 1, D / h].

        They depend on the weights only: compute them once per shape and pass them to `step`.
        """
        encoding = sinusoids(first, last, self.config.width, self.pre_encode.out.weight)
        return [layer.positions(encoding) for layer in self._layers()]

    def forward(
        self,
        mel: Tensor,
        frames: Tensor,
        context: AttentionContext | None = None,
        speakers: SpeakerActivities | None = None,
        chunk_steps: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Whole clips: mel [B, T, F], frames [B] -> steps [B, S, D], counts [B].

        `context` is one of the checkpoint's (default: its first); an unlimited one becomes LONG_CONTEXT in clips longer
        than MAX_FULL_ATTENTION_STEPS. With `chunk_steps` that many steps are subsampled at a time: the same results
        in less memory.
        """
        x, counts = self.subsample(mel, frames, chunk_steps)
        return self.encode_steps(x, counts, context, speakers), counts

    def subsample(self, mel: Tensor, frames: Tensor, chunk_steps: int | None = None) -> tuple[Tensor, Tensor]:
        """mel [B, T, F], frames [B] -> steps [B, S, D], counts [B]."""
        if chunk_steps is None:
            subsampled: tuple[Tensor, Tensor] = self.pre_encode(mel, frames)
            return subsampled
        return self.pre_encode.in_chunks(mel, frames, chunk_steps)

    def encode_steps(
        self,
        x: Tensor,
        counts: Tensor,
        context: AttentionContext | None = None,
        speakers: SpeakerActivities | None = None,
    ) -> Tensor:
        """Subsampled steps [B, S, D], counts [B] -> encoded [B, S, D]."""
        return run_to_end(self.encode_by_layer(x, counts, context, speakers))

    def encode_by_layer(
        self,
        x: Tensor,
        counts: Tensor,
        context: AttentionContext | None = None,
        speakers: SpeakerActivities | None = None,
    ) -> Preemptible[Tensor]:
        """Like `encode_steps`, preemptible after each layer."""
        x = self.dropout(self._scale(x))
        steps = x.shape[1]
        context, local = self._attention(context or self.config.contexts[0], steps)
        valid = frame_mask(counts, steps)
        if local:
            window = context.left
            for layer, positions in zip(self._layers(), self.positions(2 * window - 1, 1 - 2 * window), strict=True):
                x = layer.local(x, positions, valid, window)
                yield
            return x
        keep = valid[:, None, None]
        if not context.is_unlimited:
            keep = keep & self._visible(steps, context, x.device)
        for index, positions in enumerate(self.positions(steps - 1, 1 - steps)):
            x = self._apply_speakers(index, x, speakers)
            x = self.layers[index](x, positions, keep, valid)
            yield
        return x

    def _attention(self, context: AttentionContext, steps: int) -> tuple[AttentionContext, bool]:
        """The attention context for a clip of `steps` steps, and whether attention is local."""
        if context.is_unlimited and steps > MAX_FULL_ATTENTION_STEPS:
            return LONG_CONTEXT, True
        return context, self.config.local

    def _visible(self, steps: int, context: AttentionContext, device: torch.device) -> Tensor:
        """Attention mask of a limited context, bool [S, S]: whether a step (row) sees another (column)."""
        row = torch.arange(steps, device=device)[:, None]
        column = torch.arange(steps, device=device)[None]
        left = context.left if context.left >= 0 else steps
        right = context.right if context.right >= 0 else steps
        if self.config.style == "chunked_limited" and context.right >= 0:
            chunk = context.right + 1
            behind = row // chunk - column // chunk
            return (behind >= 0) & (behind <= left // chunk)
        if self.config.style == "chunked_limited_with_rc" and context.chunk is not None:
            begin = row // context.chunk * context.chunk
            return (column >= begin - left) & (column < begin + context.chunk + right)
        return (row - column <= left) & (column - row <= right)

    def step(
        self,
        mel: Tensor,
        frames: Tensor,
        state: EncoderState,
        positions: list[Tensor],
        speakers: SpeakerActivities | None = None,
    ) -> tuple[Tensor, Tensor, EncoderState]:
        """One chunk of C steps of cache-aware streams: mel [B, 8C, F] -> encoded [B, C, D], counts [B], state.

        Rows may be of any age. `frames` [B] counts valid mel frames from index 0. The frames of a row that
        has not started begin at LEAD_FRAMES (the virtual ones before them count as valid); a row's last
        chunk may be shorter; a row with 0 frames is idle and keeps its state. `positions` are those of
        distances L + C - 1 .. 1 - C, with L the cached steps. Source of the caching scheme: Noroozi et al.,
        "Stateful Conformer with Cache-based Inference" (2023); keys and values are cached after projection.
        """
        fresh, idle = ~state.started, frames == 0
        x, counts, subsampling = self.pre_encode.step(mel, frames, fresh, state.subsampling)
        x = self._scale(x)
        chunk, past = x.shape[1], state.keys.shape[3]
        length = state.length * ~fresh
        keep, valid = self._step_masks(length, counts, chunk, past)
        caches = []
        for index, layer in enumerate(self._layers()):
            x = self._apply_speakers(index, x, speakers)
            convolution = state.convolution[index] * ~fresh[:, None, None]
            before = (state.keys[index], state.values[index], convolution)
            x, after = layer.step(x, positions[index], keep, valid, before)
            caches.append(after)
        keys, values, convolutions = (torch.stack(parts) for parts in zip(*caches, strict=True))
        length = (length + counts).clamp(max=past)
        moved = EncoderState(subsampling, keys, values, convolutions, length, torch.ones_like(fresh))
        return x, counts, moved.keep_rows(idle, state)

    def _step_masks(self, length: Tensor, counts: Tensor, chunk: int, past: int) -> tuple[Tensor, Tensor]:
        """Masks of the visible keys (cached and new), [B, 1, 1, L + C], and of the chunk's valid steps, [B, C].

        Only whole chunks of the past are visible, as in a whole clip.
        """
        position = torch.arange(past + chunk, device=length.device)
        whole = length.clamp(max=past // chunk * chunk)
        keep = (position >= past - whole[:, None]) & (position < past + counts[:, None])
        return keep[:, None, None], frame_mask(counts, chunk)

    def _apply_speakers(self, index: int, x: Tensor, speakers: SpeakerActivities | None) -> Tensor:
        """Applies a layer's speaker kernels. Without activities the first layer assumes a single speaker, and the
        kernels of all others are skipped."""
        name = str(index)
        if name not in self.speaker_kernels or (speakers is None and index > 0):
            return x
        target, others = speakers or (x.new_ones(x.shape[:2]), x.new_zeros(x.shape[:2]))
        x = self.speaker_kernels[name](x, target)
        out: Tensor = self.background_kernels[name](x, others)
        return out

    def _scale(self, x: Tensor) -> Tensor:
        return x * math.sqrt(self.config.width) if self.config.scale_input else x

    def _layers(self) -> list[Layer]:
        return list(self.layers)  # type: ignore[arg-type]
