"""What turns take of a device's memory while they run, counted tensor by tensor where most of them live at once.

Formulas are upper bounds: at most twice what is there. Sizes are in bytes; `size` is that of a number of the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from conure.engine.backends.cuda.stream_step import INPUT_FIELDS, max_samples, max_vad_steps
from conure.engine.backends.torch_eager.clip_runner import SUBSAMPLING_STEPS
from conure.engine.backends.torch_eager.decoder import SLICE_STEPS
from conure.models.config import STEP_FRAMES, EncoderConfig, NetworkConfig
from conure.models.encoder_state import EncoderState

__all__ = [
    "clip_bytes",
    "position_bytes",
    "recorded_turn_bytes",
    "standing_turn_bytes",
    "turn_bytes",
    "window_bytes",
]

RATE = 16_000
FLOAT, LONG, COMPLEX = 4, 8, 8
LOGITS = 16
"""Vectors of a number for each token that decoding a symbol makes of a row."""


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
        """What the subsampling's first convolution gives for a frame, in a row."""
        return self.encoder.channels * (self.encoder.features // 2 + 1) * self.size // 2

    @property
    def step(self) -> int:
        """A step of a layer's input."""
        return self.encoder.width * self.size


def clip_bytes(config: NetworkConfig, size: int, rows: int, seconds: float) -> int:
    """A batch of `rows` clips of so many seconds in TorchRunner and the decoding after it.

    Beside it another one may have been begun, of which there is what is kept from slice to slice.
    """
    frames = int(seconds * RATE) // config.mel.hop + 1
    batch = _Batch(config, size, rows, frames, frames // STEP_FRAMES + 1)
    return max(_features(batch), _subsampling(batch), _layers(batch), _decoding(batch)) + _kept(batch)


def window_bytes(config: NetworkConfig, size: int, steps: int) -> int:
    """A stream's part of a turn whose windows are so many steps."""
    batch = _Batch(config, size, 1, steps * STEP_FRAMES, steps)
    return max(_features(batch), _subsampling(batch), _layers(batch), _decoding(batch))


def turn_bytes(config: NetworkConfig, size: int, chunk: int) -> int:
    """A stream's part of a turn of TorchStreamRunner with chunks of so many steps.

    Its state is there as it was before, as it comes out of the layers, joined, and where rows that idle keep theirs.
    """
    past = max(context.left for context in config.encoder.contexts)
    batch = _Batch(config, size, 1, chunk * STEP_FRAMES, chunk)
    state = EncoderState.row_bytes(config.encoder, past, size)
    longer = state * chunk // past if past else 0
    return 4 * state + longer + max(_features(batch), _subsampling(batch), _step(batch, past + chunk), _decoding(batch))


def recorded_turn_bytes(config: NetworkConfig, size: int, chunk: int) -> int:
    """A stream's part of a LiveTurn: a layer's keys and values at a time are taken out where there are no kernels."""
    past = max(context.left for context in config.encoder.contexts)
    batch = _Batch(config, size, 1, chunk * STEP_FRAMES, chunk)
    taken = 4 * (past + chunk) * batch.step
    samples = 5 * max_samples(chunk) * FLOAT
    return samples + max(_features(batch), _subsampling(batch), taken + _step(batch, past + chunk), _decoding(batch))


def standing_turn_bytes(config: NetworkConfig, chunk: int) -> int:
    """What a row of a LiveTurn has of buffers that stay, whether it runs or not."""
    token = 3 * LONG + 2 * FLOAT
    steps = chunk * (config.joint_width * FLOAT + config.max_symbols * token) + token
    memory = 2 * config.predictor_layers * config.predictor_width + config.joint_width
    heard = (max_samples(chunk) + max_vad_steps(chunk)) * FLOAT
    return heard + steps + memory * FLOAT + (len(INPUT_FIELDS) + 5) * LONG


def position_bytes(config: EncoderConfig, size: int, distances: int) -> int:
    """Each layer's projection of so many distances."""
    return config.layers * distances * config.width * size


def _features(batch: _Batch) -> int:
    """Samples as they came, emphasized, and padded; windows, their spectra, and as much again inside the FFT."""
    mel = batch.config.mel
    bins = mel.fft // 2 + 1
    return batch.rows * batch.frames * (3 * mel.hop * FLOAT + mel.fft * FLOAT + 2 * bins * COMPLEX)


def _subsampling(batch: _Batch) -> int:
    """The first convolution's image, masked, and its positive part; causal ones that go on keep the last one, too."""
    frames, images = min(batch.frames, (SUBSAMPLING_STEPS + 1) * STEP_FRAMES), 3
    if batch.encoder.causal_subsampling:
        images = 4 if frames == batch.frames else 5
    mel = batch.frames * batch.encoder.features * (FLOAT + batch.size)
    piece = 2 * frames * batch.encoder.features * batch.size
    return batch.rows * (mel + piece + images * (frames + STEP_FRAMES) * batch.image + batch.steps * batch.step)


def _layers(batch: _Batch) -> int:
    """Scores by distance, padded and scaled, and a bias that attention wants aligned; hidden layers before and after
    their activation."""
    encoder, steps = batch.encoder, batch.steps
    columns = 4 * encoder.contexts[0].left + encoder.global_tokens if encoder.local else 2 * steps
    scores = 3 * encoder.heads * steps * columns * batch.size
    hidden = (2 * encoder.expansion + 5) * steps * batch.step
    around = 12 * steps * batch.step if encoder.local else 0
    return batch.rows * (scores + hidden + around) + _kept(batch)


def _step(batch: _Batch, keys: int) -> int:
    """The same for a chunk before its past; keys and values with it were counted."""
    encoder, steps = batch.encoder, batch.steps
    scores = 3 * encoder.heads * steps * 2 * keys * batch.size
    return batch.rows * (scores + (2 * encoder.expansion + 5) * steps * batch.step)


def _kept(batch: _Batch) -> int:
    """Between two slices of a batch: the mel, the steps before and after the layers, masks and positions."""
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
