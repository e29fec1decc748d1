"""The exception hierarchy of Conure.

    ConureError
    ├── BadRequest          the request is invalid; the caller can correct it
    │   ├── UnsupportedAudio     not audio, damaged, empty or with samples that are not finite
    │   ├── NoSuchTrack          the recording has no audio track with this number
    │   ├── AudioTooLong         longer than the configured limit
    │   ├── AudioNotFound        the file does not exist or is not readable
    │   ├── UnknownModel         no catalog entry, hub id or path has this name
    │   ├── UnsupportedLanguage  the model does not support the language
    │   ├── BadOption            invalid value of an option
    │   ├── Unauthorized         the key is missing or invalid
    │   └── Forbidden            the key lacks the required scope
    ├── ModelError          the model cannot be used
    │   ├── ModelNotFound        the weights are neither on disk nor downloadable
    │   ├── BadCheckpoint        the file is broken, malicious or of an unsupported family
    │   └── MissingBackend       an optional library is not installed
    ├── Busy                no capacity at the moment; carries the time after which to retry
    │   ├── TooMany              a limit of the caller's key is reached
    │   ├── StorageFull          the server's disk has no space for the recording
    │   └── BacklogFull          the buffers for audio that is not yet transcribed are full
    ├── OutOfMemory         the device has too little memory
    └── EngineFailed        an internal failure (see the log), or the process that decoded a recording died

Each error carries one line that names the offending value and, where possible, a hint how to correct it. Both may
quote untrusted input, so control characters are removed. HTTP status codes and exit codes are assigned elsewhere.
"""

from __future__ import annotations

from conure.safe_text import one_line

__all__ = [
    "AudioNotFound",
    "AudioTooLong",
    "BacklogFull",
    "BadCheckpoint",
    "BadOption",
    "BadRequest",
    "Busy",
    "ConureError",
    "EngineFailed",
    "Forbidden",
    "MissingBackend",
    "ModelError",
    "ModelNotFound",
    "NoSuchTrack",
    "OutOfMemory",
    "StorageFull",
    "TooMany",
    "Unauthorized",
    "UnknownModel",
    "UnsupportedAudio",
    "UnsupportedLanguage",
]


class ConureError(Exception):
    """Base class. The message names the offending value and is reduced to one printable line."""

    code = "error"

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = one_line(message)
        self.hint = hint if hint is None else one_line(hint)
        super().__init__(self.message)


class BadRequest(ConureError, ValueError):
    """The request is invalid."""

    code = "bad_request"


class UnsupportedAudio(BadRequest):
    """The bytes cannot be decoded as audio, or contain no finite sample."""

    code = "unsupported_audio"


class NoSuchTrack(BadRequest):
    """The recording has no audio track with the requested number."""

    code = "no_such_track"


class AudioTooLong(BadRequest):
    """The audio exceeds the configured limit."""

    code = "audio_too_long"


class AudioNotFound(BadRequest, FileNotFoundError):
    """The audio file does not exist or is not readable."""

    code = "audio_not_found"


class UnknownModel(BadRequest):
    """No catalog entry, hub id or path has this name."""

    code = "unknown_model"


class UnsupportedLanguage(BadRequest):
    """The model does not support the requested language."""

    code = "unsupported_language"


class BadOption(BadRequest):
    """The value of an option is invalid."""

    code = "bad_option"


class Unauthorized(BadRequest):
    """A valid key is required; it is missing or unknown."""

    code = "unauthorized"


class Forbidden(BadRequest):
    """The key does not have the required scope."""

    code = "forbidden"


class ModelError(ConureError):
    """The model cannot be used."""

    code = "model_error"


class ModelNotFound(ModelError, FileNotFoundError):
    """The weights are not on disk and cannot be downloaded."""

    code = "model_not_found"


class BadCheckpoint(ModelError, ValueError):
    """The checkpoint is broken, malicious or of an unsupported family."""

    code = "bad_checkpoint"


class MissingBackend(ModelError, ImportError):
    """A required optional library is not installed."""

    code = "missing_backend"


class Busy(ConureError):
    """There is no capacity at the moment."""

    code = "busy"

    def __init__(self, message: str, hint: str | None = None, retry_after: float = 5.0) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class TooMany(Busy):
    """A limit of the caller's key is reached; `retry_after` tells when the caller may try again."""

    code = "too_many"


class StorageFull(Busy):
    """The disk that buffers recordings until they are transcribed is full."""

    code = "storage_full"


class BacklogFull(Busy):
    """Audio was sent faster than real time and the backlog has no space left."""

    code = "backlog_full"


class OutOfMemory(ConureError):
    """The device has too little memory; a retry would fail, too."""

    code = "out_of_memory"


class EngineFailed(ConureError):
    """The engine or the process that decoded a recording failed; its unfinished work is lost."""

    code = "engine_failed"
