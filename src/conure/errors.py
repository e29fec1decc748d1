"""Every mistake we know.

    ConureError
    ├── BadRequest          the caller can mend it
    │   ├── UnsupportedAudio     not audio, broken, empty or not finite
    │   ├── NoSuchTrack          it has no audio track of that number
    │   ├── AudioTooLong         longer than the limit that was set
    │   ├── AudioNotFound        no such file, or it may not be read
    │   ├── UnknownModel         no catalogue entry, hub id or path of that name
    │   ├── UnsupportedLanguage  the model does not know the language
    │   ├── BadOption            a value that an option does not take
    │   ├── Unauthorized         a key is needed, and this is none
    │   └── Forbidden            the key is for something else
    ├── ModelError          the model cannot be used as it stands
    │   ├── ModelNotFound        its weights are neither on disk nor to be had
    │   ├── BadCheckpoint        a file that is broken, hostile or of another family
    │   └── MissingBackend       an optional library is not installed
    ├── Busy                there is no room now; says when to try again
    │   ├── TooMany              this caller has what it may have for now
    │   ├── StorageFull          the server's disk has no room for the recording
    │   └── BacklogFull          audio that waits to be transcribed takes all the room there is for it
    ├── OutOfMemory         the device has too little memory for it
    └── EngineFailed        our fault, and the log tells why; or a process that read a recording died

Each error carries one line that names the offending value and, where there is one, a hint that says
how to mend it. Both may repeat what a stranger sent: no terminal obeys them, and every encoding takes
them. Lower floors never mention HTTP or exit codes.
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
    """A mistake we know, with the offending value in its message, which is made one line that can be printed."""

    code = "error"

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = one_line(message)
        self.hint = hint if hint is None else one_line(hint)
        super().__init__(self.message)


class BadRequest(ConureError, ValueError):
    """The caller asked for something that cannot be done."""

    code = "bad_request"


class UnsupportedAudio(BadRequest):
    """The bytes are not audio we can decode, or hold no finite sample."""

    code = "unsupported_audio"


class NoSuchTrack(BadRequest):
    """The recording has no audio track of the number that was asked for."""

    code = "no_such_track"


class AudioTooLong(BadRequest):
    """The audio runs past the limit that was set."""

    code = "audio_too_long"


class AudioNotFound(BadRequest, FileNotFoundError):
    """The audio file does not exist or may not be read."""

    code = "audio_not_found"


class UnknownModel(BadRequest):
    """No catalogue entry, hub id or path goes by this name."""

    code = "unknown_model"


class UnsupportedLanguage(BadRequest):
    """The model does not know the language asked for."""

    code = "unsupported_language"


class BadOption(BadRequest):
    """An option does not take this value."""

    code = "bad_option"


class Unauthorized(BadRequest):
    """A key is needed, and there was none or one that is not known."""

    code = "unauthorized"


class Forbidden(BadRequest):
    """The key is not for this."""

    code = "forbidden"


class ModelError(ConureError):
    """The model cannot be used as it stands."""

    code = "model_error"


class ModelNotFound(ModelError, FileNotFoundError):
    """The weights are not on disk and cannot be downloaded."""

    code = "model_not_found"


class BadCheckpoint(ModelError, ValueError):
    """The checkpoint is broken, hostile or of a family we do not know."""

    code = "bad_checkpoint"


class MissingBackend(ModelError, ImportError):
    """An optional library is needed and not installed."""

    code = "missing_backend"


class Busy(ConureError):
    """There is no room for it now."""

    code = "busy"

    def __init__(self, message: str, hint: str | None = None, retry_after: float = 5.0) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class TooMany(Busy):
    """The caller has what its key allows for now; says when there will be more."""

    code = "too_many"


class StorageFull(Busy):
    """The disk where recordings are kept until they are transcribed takes no more."""

    code = "storage_full"


class BacklogFull(Busy):
    """Audio came ahead of its time, and there is no room to keep it."""

    code = "backlog_full"


class OutOfMemory(ConureError):
    """The device has too little memory for it, now and later."""

    code = "out_of_memory"


class EngineFailed(ConureError):
    """The engine broke, or a process that read a recording: what it was doing is lost."""

    code = "engine_failed"
