"""The library's `Recognizer`: a recording in, a transcript out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from conure.audio.files import AudioReader, Source, open_audio
from conure.audio.resample import Samples
from conure.constants import SAMPLE_RATE
from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.backends.registry import open_clip_runner
from conure.engine.lanes.clips import best_batch_seconds, transcribe_clips
from conure.models.checkpoint import Checkpoint
from conure.service.bulk_transcription import BulkTranscription, Progress
from conure.service.languages import check_language, prompt_id_for
from conure.service.segmented_recording import SegmentedRecording
from conure.settings import load_settings
from conure.text.segments import segments_from_words
from conure.text.words import join_words, words_from_tokens
from conure.types import RunnerChoice, Transcript, Word
from conure.vad.segmentation import SegmentationSettings

__all__ = ["Progress", "Recognizer", "load"]

log = logging.getLogger(__name__)

MAX_SECONDS = 12 * 3600.0

Result = TypeVar("Result")


def load(
    model: str | Path | None = None,
    *,
    device: str = "auto",
    runner: RunnerChoice = "auto",
    cache: Path | None = None,
    threads: int | None = None,
) -> Recognizer:
    """Loads a model: a catalog name, a hub id (`org/name`, with `@revision`), a .nemo file or a folder.

    The default is that of the settings (`CONURE_MODEL`, or parakeet-tdt-0.6b-v3). Weights are downloaded on first
    use. Raises UnknownModel, ModelNotFound, BadCheckpoint or BadOption.
    """
    model = model or load_settings().model
    opened, checkpoint = open_clip_runner(model, device=device, runner=runner, cache=cache, threads=threads)
    return Recognizer(opened, checkpoint)


class Recognizer:
    """A loaded model. Calls share no state; only one call at a time."""

    def __init__(
        self,
        runner: ClipRunner,
        checkpoint: Checkpoint,
        *,
        segment_seconds: float = 30.0,
        batch_seconds: float | None = None,
    ) -> None:
        """Long recordings are split into clips of at most `segment_seconds`, transcribed in batches of `batch_seconds`.

        The default batch size is the best for the device.
        """
        self.runner = runner
        self.checkpoint = checkpoint
        self.segment_seconds = segment_seconds
        self.batch_seconds = batch_seconds or best_batch_seconds(runner.device)

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the model; empty if neither the checkpoint nor the catalog names them."""
        return self.checkpoint.languages

    def transcribe(
        self,
        source: Source,
        *,
        language: str | None = None,
        track: int | None = None,
        max_seconds: float | None = MAX_SECONDS,
        progress: Progress | None = None,
    ) -> Transcript:
        """Transcribes a path, bytes or a binary file, with its channels mixed. Raises subclasses of BadRequest.

        `track`: one of several audio tracks, from 1; default: the container's default among those with sound.
        """
        with open_audio(source, channels="mix", track=track, max_seconds=max_seconds) as reader:
            return self._read(reader, language, progress)[0]

    def transcribe_channels(
        self,
        source: Source,
        *,
        language: str | None = None,
        track: int | None = None,
        max_seconds: float | None = MAX_SECONDS,
        progress: Progress | None = None,
    ) -> list[Transcript]:
        """Transcribes each channel separately, such as the speakers of recorded calls."""
        with open_audio(source, channels="split", track=track, max_seconds=max_seconds) as reader:
            transcripts = self._read(reader, language, progress)
        return _numbered(transcripts)

    def transcribe_many(
        self,
        sources: Iterable[Source],
        *,
        language: str | None = None,
        track: int | None = None,
        max_seconds: float | None = MAX_SECONDS,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Transcript | Exception]:
        """Transcripts in the order of the sources; for a recording that fails, its exception in place of a transcript.

        Several recordings are decoded at a time: files on disk in worker processes, by default one less than
        processors and at most 16. They share batches, which is faster than one call each, with the same words. Make no
        other call until the iterator is exhausted or closed. Raises errors that affect all recordings at once.
        """
        language = check_language(self.name, language, self.languages, self.checkpoint.config.prompt_ids)
        return self._many(
            sources, language, track, max_seconds, workers, progress, split=False, of=lambda transcripts: transcripts[0]
        )

    def transcribe_channels_many(
        self,
        sources: Iterable[Source],
        *,
        language: str | None = None,
        track: int | None = None,
        max_seconds: float | None = MAX_SECONDS,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[list[Transcript] | Exception]:
        """As `transcribe_many`, with each channel separately."""
        language = check_language(self.name, language, self.languages, self.checkpoint.config.prompt_ids)
        return self._many(sources, language, track, max_seconds, workers, progress, split=True, of=_numbered)

    def _many(
        self,
        sources: Iterable[Source],
        language: str | None,
        track: int | None,
        max_seconds: float | None,
        workers: int | None,
        progress: Progress | None,
        *,
        split: bool,
        of: Callable[[list[Transcript]], Result],
    ) -> Iterator[Result | Exception]:
        prompt = prompt_id_for(self.name, language, self.checkpoint.config.prompt_ids)
        transcription = BulkTranscription(
            sources,
            partial(self._tokens, prompt=prompt),
            self._words_of,
            split=split,
            track=track,
            max_seconds=max_seconds,
            segmentation=SegmentationSettings(max_seconds=self.segment_seconds),
            batch_seconds=self.batch_seconds,
            workers=workers,
            progress=progress,
        )
        with closing(transcription.results()) as results:
            for recording in results:
                yield recording.error or of(
                    self._transcripts(
                        recording.by_channel(), recording.name, recording.seconds, recording.problems, language
                    )
                )

    def _read(self, reader: AudioReader, language: str | None, progress: Progress | None) -> list[Transcript]:
        language = check_language(self.name, language, self.languages, self.checkpoint.config.prompt_ids)
        prompt = prompt_id_for(self.name, language, self.checkpoint.config.prompt_ids)
        segmentation = SegmentationSettings(max_seconds=self.segment_seconds)
        recording = SegmentedRecording(
            partial(self._words, prompt=prompt), segmentation=segmentation, batch_seconds=self.batch_seconds
        )
        report = None if progress is None else partial(_report, progress, reader)
        words: list[list[Word]] = [[] for _ in range(reader.channels)]
        for channel, word in recording.words(reader.blocks(), report):
            words[channel].append(word)
        return self._transcripts(words, reader.name, reader.seconds_read, reader.problems, language)

    def _transcripts(
        self, words: list[list[Word]], name: str, seconds: float, problems: list[str], language: str | None
    ) -> list[Transcript]:
        """One transcript for each channel's words."""
        for problem in problems:
            log.warning("%s: %s", name, problem)
        template = Transcript("", round(seconds, 3), language, self.name, problems=tuple(problems))
        return [replace(template, text=join_words(part), segments=tuple(segments_from_words(part))) for part in words]

    def _words(self, clips: list[Samples], prompt: int | None) -> list[Sequence[Word]]:
        """The words of each clip, in times of the clip."""
        emitted = self._tokens(clips, prompt)
        return [self._words_of(tokens, len(clip) / SAMPLE_RATE) for tokens, clip in zip(emitted, clips, strict=True)]

    def _tokens(self, clips: list[Samples], prompt: int | None) -> list[list[EmittedToken]]:
        return transcribe_clips(self.runner, clips, prompt, self.batch_seconds)

    def _words_of(self, tokens: list[EmittedToken], seconds: float) -> Sequence[Word]:
        """No word ends after its clip."""
        return words_from_tokens([token.to_token(end=seconds) for token in tokens], self.checkpoint.tokenizer)


def _numbered(transcripts: list[Transcript]) -> list[Transcript]:
    return [replace(transcript, channel=index) for index, transcript in enumerate(transcripts)]


def _report(progress: Progress, reader: AudioReader, done: float) -> None:
    progress(done, reader.duration_hint)
