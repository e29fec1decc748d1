"""`Recognize`: transcription of a recording."""

from __future__ import annotations

import io
from typing import Any

from conure.audio.wav_header import with_wav_header
from conure.engine.plan import ModelInfo
from conure.protocols.riva.options import HEAD_BYTES, Options, parse_audio, parse_options
from conure.protocols.riva.results import alternative
from conure.protocols.riva.riva_asr_pb2 import RecognizeRequest, RecognizeResponse, SpeechRecognitionResult
from conure.protocols.services import Services
from conure.service.access import Caller
from conure.service.languages import only_language
from conure.types import Transcript

__all__ = ["recognize"]


async def recognize(
    services: Services, request: RecognizeRequest, caller: Caller
) -> tuple[RecognizeResponse, dict[str, Any]]:
    """Returns the response and its metadata notes; one result per separate channel. Raises ConureError."""
    config = request.config
    options = parse_options(config, services.live.models)
    model = services.live.models.find_file_model(options.model)
    audio = parse_audio(config, request.audio[:HEAD_BYTES])
    body = io.BytesIO(request.audio)
    file = body if audio.encoding == "container" else with_wav_header(body, audio)
    is_separate = config.enable_separate_recognition_per_channel
    transcribe = services.files.transcribe_channels if is_separate else services.files.transcribe
    result = await transcribe(file, model, options.language, caller)
    transcripts = result if isinstance(result, list) else [result]
    ignored = (*options.ignored, *(["endpointing_config"] if config.HasField("endpointing_config") else []))
    return (
        RecognizeResponse(results=[_result(transcript, options, model) for transcript in transcripts], id=request.id),
        {"ignored": ignored, "problems": transcripts[0].problems},
    )


def _result(transcript: Transcript, options: Options, model: ModelInfo) -> SpeechRecognitionResult:
    language = transcript.language or only_language(model.languages)
    return SpeechRecognitionResult(
        alternatives=[alternative(transcript.text, transcript.words, language, options)],
        channel_tag=(transcript.channel or 0) + 1,
        audio_processed=transcript.duration,
    )
