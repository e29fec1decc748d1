"""NeMo's two ways to stream: cache-aware encoders chunk by chunk, and buffered full windows."""

from dataclasses import dataclass

import torch
from nemo.collections.asr.parts.utils.streaming_utils import ContextSize, StreamingBatchedAudioBuffer

from tools.parity.nemo_decode import decode_chunk

SAMPLES_PER_STEP = 1280


@dataclass
class Streamed:
    """Results of streaming one clip: encoder output [T, D] as passed to the decoder, tokens and steps."""

    encoder: torch.Tensor
    tokens: list[int]
    steps: list[int]


def decode_chunks(model, chunks: list[torch.Tensor]) -> Streamed:
    """Decode encoder outputs [1, T, D] one after the other, the decoder's state carried on."""
    tokens, steps, state = [], [], None
    for chunk in chunks:
        more_tokens, more_steps, state = decode_chunk(model, chunk, state)
        tokens += more_tokens
        steps += more_steps
    return Streamed(torch.cat(chunks, 1)[0], tokens, steps)


def stream_cache_aware(model, mel: torch.Tensor, finish=None) -> Streamed:
    """Feed one utterance's mel [1, M, F] as `CacheAwareStreamingAudioBuffer` does.

    The first chunk has 1+8R frames, later ones 8(R+1); each later chunk is preceded by nine old frames whose two
    outputs are dropped. `finish` is applied to a chunk's encoder output before decoding (the language prompt).
    """
    setup = model.encoder.streaming_cfg
    channels, times, filled = model.encoder.get_initial_cache_state(batch_size=1)
    position, chunks = 0, []
    while position < mel.shape[-1]:
        later = int(position > 0)
        size = setup.chunk_size[later]
        chunk = cut_with_history(mel, position, size, setup.pre_encode_cache_size[later])
        encoded, length, channels, times, filled = model.encoder.cache_aware_stream_step(
            processed_signal=chunk,
            processed_signal_length=torch.tensor([chunk.shape[-1]]),
            cache_last_channel=channels,
            cache_last_time=times,
            cache_last_channel_len=filled,
            keep_all_outputs=position + size >= mel.shape[-1],
            drop_extra_pre_encoded=setup.drop_extra_pre_encoded if later else 0,
        )
        encoded = encoded[:, :, : int(length[0])]
        chunks.append((finish(encoded) if finish else encoded).transpose(1, 2))
        position += setup.shift_size[later]
    return decode_chunks(model, chunks)


def cut_with_history(mel: torch.Tensor, position: int, size: int, history: int) -> torch.Tensor:
    """`size` frames from `position` and `history` frames before them, zeros where there are none."""
    chunk = mel[:, :, max(0, position - history) : position + size]
    return torch.nn.functional.pad(chunk, (max(0, history - position), 0))


def stream_buffered(model, audio: torch.Tensor, left: int, chunk: int, right: int) -> tuple[Streamed, torch.Tensor]:
    """Transcribe one clip [samples] in windows of left, chunk and right encoder steps, encoding each window anew.

    Only the chunk's own steps are decoded; the last window decodes everything that is left. The second result is a
    table [windows, 3] of each window's samples, its first decoded step and its number of decoded steps.
    """
    context = ContextSize(*(steps * SAMPLES_PER_STEP for steps in (left, chunk, right)))
    buffer = StreamingBatchedAudioBuffer(1, context, audio.dtype, audio.device)
    begin, end = 0, min(context.chunk + context.right, len(audio))
    chunks, windows = [], []
    while begin < len(audio):
        is_last = end >= len(audio)
        buffer.add_audio_batch_(audio[None, begin:end], torch.tensor([end - begin]), is_last, torch.tensor([is_last]))
        encoded, length = model(input_signal=buffer.samples, input_signal_length=buffer.context_size_batch.total())
        first = buffer.context_size.left // SAMPLES_PER_STEP
        count = int(length[0]) - first if is_last else buffer.context_size.chunk // SAMPLES_PER_STEP
        chunks.append(encoded.transpose(1, 2)[:, first : first + count])
        windows.append([buffer.samples.shape[1], first, count])
        begin, end = end, min(end + context.chunk, len(audio))
    return decode_chunks(model, chunks), torch.tensor(windows)
