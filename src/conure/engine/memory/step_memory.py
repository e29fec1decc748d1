"""The peak memory of steps and of batches, counted tensor by tensor at the point where most of them exist.

The formulas are upper bounds, at most twice the real peak. Sizes are in bytes; `size` is that of an encoder's number.
"""

from __future__ import annotations

from dataclasses import dataclass

from conure.constants import SAMPLE_RATE
from conure.engine.backends.cuda.stream_step import INPUT_FIELDS, max_samples, max_vad_steps
from conure.engine.backends.torch_eager.clip_runner import SUBSAMPLING_STEPS
from conure.engine.backends.torch_eager.decoder import SLICE_STEPS
from conure.models.config import STEP_FRAMES, EncoderConfig, NetworkConfig
from conure.models.encoder_state import EncoderState

__all__ = [
    "clip_bytes",
    "position_bytes",
    "captured_step_bytes",
    "captured_buffer_bytes",
    "step_bytes",
    "window_bytes",
]

FLOAT, LONG, COMPLEX = 4, 8, 8
LOGITS = 16
"""Vectors [vocabulary] that the decoding of a symbol allocates for each row."""


@dataclass(frozen=True)
class _Batch:
    config: NetworkConfig
    size: int
    rows: int
    frames: int
    steps: int

    @property
    def encoder(self) -> EncoderConfig:
        return self.config.encoder

    @property
    def image(self) -> int:
        """Output of the subsampling's first convolution, for one mel frame of a row."""
        return self.encoder.channels * (self.encoder.features // 2 + 1) * self.size // 2

    @property
    def step(self) -> int:
        """Input of a layer, for one encoder frame of a row."""
        return self.encoder.width * self.size


def clip_bytes(config: NetworkConfig, size: int, rows: int, seconds: float) -> int:
    """A batch of `rows` clips of so many seconds in TorchClipRunner, and its decoding.

    Includes what another batch in progress keeps from slice to slice.
    """
    frames = int(seconds * SAMPLE_RATE) // config.mel.hop + 1
    batch = _Batch(config, size, rows, frames, frames // STEP_FRAMES + 1)
    return max(_features(batch), _subsampling(batch), _layers(batch), _decoding(batch)) + _kept(batch)


def window_bytes(config: NetworkConfig, size: int, steps: int) -> int:
    """A stream's part of a step, for windows of `steps` encoder frames."""
    batch = _Batch(config, size, 1, steps * STEP_FRAMES, steps)
    return max(_features(batch), _subsampling(batch), _layers(batch), _decoding(batch))


def step_bytes(config: NetworkConfig, size: int, chunk: int) -> int:
    """A stream's part of a step of TorchStreamRunner, for chunks of `chunk` encoder frames.

    The state exists four times: before the step, as the layers' output, concatenated, and in the slots that are idle.
    """
    past = max(context.left for context in config.encoder.contexts)
    batch = _Batch(config, size, 1, chunk * STEP_FRAMES, chunk)
    state = EncoderState.row_bytes(config.encoder, past, size)
    chunk_state = state * chunk // past if past else 0
    return (
        4 * state
        + chunk_state
        + max(_features(batch), _subsampling(batch), _step(batch, past + chunk), _decoding(batch))
    )


def captured_step_bytes(config: NetworkConfig, size: int, chunk: int) -> int:
    """A stream's part of a CudaStreamStep; without kernels, the keys and values of one layer at a time are copied."""
    past = max(context.left for context in config.encoder.contexts)
    batch = _Batch(config, size, 1, chunk * STEP_FRAMES, chunk)
    copied = 4 * (past + chunk) * batch.step
    samples = 5 * max_samples(chunk) * FLOAT
    return samples + max(_features(batch), _subsampling(batch), copied + _step(batch, past + chunk), _decoding(batch))


def captured_buffer_bytes(config: NetworkConfig, chunk: int) -> int:
    """The buffers of a CudaStreamStep for one row, which stay allocated."""
    token = 3 * LONG + 2 * FLOAT
    steps = chunk * (config.joint_width * FLOAT + config.max_symbols * token) + token
    state = 2 * config.predictor_layers * config.predictor_width + config.joint_width
    audio = (max_samples(chunk) + max_vad_steps(chunk)) * FLOAT
    return audio + steps + state * FLOAT + (len(INPUT_FIELDS) + 5) * LONG


def position_bytes(config: EncoderConfig, size: int, distances: int) -> int:
    """The projections of so many distances, for all layers."""
    return config.layers * distances * config.width * size


def _features(batch: _Batch) -> int:
    """Samples (as received, pre-emphasized, padded), windows, their spectra, and as much again inside the FFT."""
    mel = batch.config.mel
    bins = mel.fft // 2 + 1
    return batch.rows * batch.frames * (3 * mel.hop * FLOAT + mel.fft * FLOAT + 2 * bins * COMPLEX)


def _subsampling(batch: _Batch) -> int:
    """The first convolution's output, masked, and after ReLU; causal ones in pieces keep the previous one, too."""
    frames, images = min(batch.frames, (SUBSAMPLING_STEPS + 1) * STEP_FRAMES), 3
    if batch.encoder.causal_subsampling:
        images = 4 if frames == batch.frames else 5
    mel = batch.frames * batch.encoder.features * (FLOAT + batch.size)
    piece = 2 * frames * batch.encoder.features * batch.size
    return batch.rows * (mel + piece + images * (frames + STEP_FRAMES) * batch.image + batch.steps * batch.step)


def _layers(batch: _Batch) -> int:
    """Attention scores by distance, padded and scaled, with an aligned bias; feed-forward before and after its
    activation."""
    encoder, steps = batch.encoder, batch.steps
    columns = 4 * encoder.contexts[0].left + encoder.global_tokens if encoder.local else 2 * steps
    scores = 3 * encoder.heads * steps * columns * batch.size
    hidden = (2 * encoder.expansion + 5) * steps * batch.step
    neighbors = 12 * steps * batch.step if encoder.local else 0
    return batch.rows * (scores + hidden + neighbors) + _kept(batch)


def _step(batch: _Batch, keys: int) -> int:
    """`_layers` for a chunk with its cached past, whose keys and values are counted elsewhere."""
    encoder, steps = batch.encoder, batch.steps
    scores = 3 * encoder.heads * steps * 2 * keys * batch.size
    return batch.rows * (scores + (2 * encoder.expansion + 5) * steps * batch.step)


def _kept(batch: _Batch) -> int:
    """Kept between two slices of a batch: mel, the layers' input and output, masks and positions."""
    encoder, steps = batch.encoder, batch.steps
    mel = batch.frames * encoder.features * FLOAT
    mask, distances = 2 * steps * steps, 2 * steps
    if encoder.local:
        window = encoder.contexts[0].left
        mask, distances = 6 * steps * window, 4 * window
    return batch.rows * (mel + 2 * steps * batch.step + mask) + position_bytes(encoder, batch.size, distances)


def _decoding(batch: _Batch) -> int:
    config, steps = batch.config, batch.steps
    tokens = config.vocabulary + 1 + len(config.durations)
    prompt = 6 if config.prompts else 0
    read = steps * (prompt * batch.step + batch.step + batch.encoder.width * FLOAT)
    if not config.predictor_width:
        return batch.rows * (read + 4 * steps * tokens * FLOAT)
    token = 3 * LONG + 2 * FLOAT
    part = SLICE_STEPS * (config.joint_width * FLOAT + config.max_symbols * token)
    return batch.rows * (read + part + LOGITS * tokens * FLOAT)
