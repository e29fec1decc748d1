"""The object people hold: a recording in, a transcript out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from conure.audio.files import AudioReader, Source, open_audio
from conure.audio.resample import Samples
from conure.engine.clips import transcribe_clips
from conure.engine.opening import open_runner
from conure.engine.runner import Runner
from conure.models.checkpoint import Checkpoint
from conure.service.finishing import words_of_clip
from conure.service.languages import check_language, prompt_slot
from conure.service.long_audio import LongAudio
from conure.settings import RunnerChoice, load_settings
from conure.text.segments import segments_from_words
from conure.text.words import join_words
from conure.types import Transcript, Word
from conure.vad.cuts import CutSettings

__all__ = ["Progress", "Recognizer", "load"]

log = logging.getLogger(__name__)

RATE = 16_000
MAX_SECONDS = 12 * 3600.0

Progress = Callable[[float, float | None], None]
"""Called with the seconds done and the seconds there are, when the container tells."""


def load(
    model: str | Path | None = None,
    *,
    device: str = "auto",
    runner: RunnerChoice = "auto",
    cache: Path | None = None,
    threads: int | None = None,
) -> Recognizer:
    """A recognizer for a catalogue name, a hub id (`org/name`, with `@revision`), a .nemo file or a folder.

    Without a name it is the settings' (`CONURE_MODEL`, or parakeet-tdt-0.6b-v3). Weights are downloaded on first
    use. Raises UnknownModel, ModelNotFound, BadCheckpoint or BadOption.
    """
    model = model or load_settings().model
    opened, checkpoint = open_runner(model, device=device, runner=runner, cache=cache, threads=threads)
    return Recognizer(opened, checkpoint)


class Recognizer:
    """One loaded model. Calls share no state; make one at a time."""

    def __init__(
        self, runner: Runner, checkpoint: Checkpoint, *, segment_seconds: float = 30.0, batch_seconds: float = 240.0
    ) -> None:
        self.runner = runner
        self.checkpoint = checkpoint
        self.segment_seconds = segment_seconds
        self.batch_seconds = batch_seconds

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @property
    def languages(self) -> tuple[str, ...]:
        """Those the model knows; empty when neither checkpoint nor catalogue tells."""
        return self.checkpoint.languages

    def transcribe(
        self,
        source: Source,
        *,
        language: str | None = None,
        max_seconds: float | None = MAX_SECONDS,
        progress: Progress | None = None,
    ) -> Transcript:
        """A path, bytes or a binary file, its channels mixed. Raises the children of BadRequest."""
        with open_audio(source, channels="mix", max_seconds=max_seconds) as reader:
            return self._read(reader, language, progress)[0]

    def transcribe_channels(
        self,
        source: Source,
        *,
        language: str | None = None,
        max_seconds: float | None = MAX_SECONDS,
        progress: Progress | None = None,
    ) -> list[Transcript]:
        """Each channel apart: recorded calls have one speaker on each."""
        with open_audio(source, channels="split", max_seconds=max_seconds) as reader:
            transcripts = self._read(reader, language, progress)
        return [replace(transcript, channel=index) for index, transcript in enumerate(transcripts)]

    def _read(self, reader: AudioReader, language: str | None, progress: Progress | None) -> list[Transcript]:
        check_language(self.name, language, self.languages)
        prompt = prompt_slot(self.name, language, self.checkpoint.config.prompt_ids)
        cut = CutSettings(max_seconds=self.segment_seconds)
        long_audio = LongAudio(partial(self._words, prompt=prompt), cut=cut, batch_seconds=self.batch_seconds)
        report = None if progress is None else partial(_report, progress, reader)
        words: list[list[Word]] = [[] for _ in range(reader.channels)]
        for channel, word in long_audio.words(reader.blocks(), report):
            words[channel].append(word)
        for problem in reader.problems:
            log.warning("%s: %s", reader.name, problem)
        return [self._transcript(found, reader, language) for found in words]

    def _words(self, clips: list[Samples], prompt: int | None) -> list[list[Word]]:
        """Each clip's words, in times of the clip."""
        emitted = transcribe_clips(self.runner, clips, prompt, self.batch_seconds)
        tokenizer = self.checkpoint.tokenizer
        return [words_of_clip(tokens, tokenizer, len(clip) / RATE) for tokens, clip in zip(emitted, clips, strict=True)]

    def _transcript(self, words: list[Word], reader: AudioReader, language: str | None) -> Transcript:
        return Transcript(
            text=join_words(words),
            duration=round(reader.seconds_read, 3),
            language=language,
            model=self.name,
            segments=tuple(segments_from_words(words)),
            problems=tuple(reader.problems),
        )


def _report(progress: Progress, reader: AudioReader, done: float) -> None:
    progress(done, reader.duration_hint)
