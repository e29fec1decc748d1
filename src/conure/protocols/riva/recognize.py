"""`Recognize`: a recording and its transcript."""

from __future__ import annotations

import io
from typing import Any

from conure.audio.wav_header import with_wav_header
from conure.engine.plan import ModelInfo
from conure.protocols.riva.options import HEAD, Options, audio_of, options_of
from conure.protocols.riva.results import alternative
from conure.protocols.riva.riva_asr_pb2 import RecognizeRequest, RecognizeResponse, SpeechRecognitionResult
from conure.protocols.services import Services
from conure.service.access import Caller
from conure.service.languages import only_language
from conure.types import Transcript

__all__ = ["recognize"]


async def recognize(
    behind: Services, request: RecognizeRequest, caller: Caller
) -> tuple[RecognizeResponse, dict[str, Any]]:
    """With what else is to be said of it: a result for each channel, one where they are mixed. Raises ConureError."""
    config = request.config
    options = options_of(config, behind.live.models)
    card = behind.live.models.find_file_model(options.model)
    audio = audio_of(config, request.audio[:HEAD])
    said = io.BytesIO(request.audio)
    file = said if audio.encoding == "container" else with_wav_header(said, audio)
    apart = config.enable_separate_recognition_per_channel
    transcribe = behind.files.transcribe_channels if apart else behind.files.transcribe
    found = await transcribe(file, card, options.language, caller)
    transcripts = found if isinstance(found, list) else [found]
    ignored = (*options.ignored, *(["endpointing_config"] if config.HasField("endpointing_config") else []))
    return (
        RecognizeResponse(results=[_result(each, options, card) for each in transcripts], id=request.id),
        {"ignored": ignored, "problems": transcripts[0].problems},
    )


def _result(transcript: Transcript, options: Options, card: ModelInfo) -> SpeechRecognitionResult:
    language = transcript.language or only_language(card.languages)
    return SpeechRecognitionResult(
        alternatives=[alternative(transcript.text, transcript.words, language, options)],
        channel_tag=(transcript.channel or 0) + 1,
        audio_processed=transcript.duration,
    )
