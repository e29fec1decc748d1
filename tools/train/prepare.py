"""All clips for training and evaluation: recordings and (cached) synthesised speech."""

from pathlib import Path

from tools.train.corpus import Clip, read_corpus
from tools.train.synthesis import DIGITS, phrase_jobs, synthesise, word_jobs

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
NUMBERS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand",
)  # fmt: skip
_WORD_COLLECTIONS = ("fsdd", "an4", "speech_commands", "dsp20_en", "ros_commands", "wakewords_pv", "mycroft_words")


def command_words(clips: list[Clip]) -> list[str]:
    """The closed vocabulary: words of the short recordings, digits, letters and numbers."""
    spoken = {word for clip in clips if clip.collection in _WORD_COLLECTIONS for word in clip.words}
    return sorted(spoken | set(DIGITS) | set(LETTERS) | set(NUMBERS))


def prepare(data: Path, cache: Path, phrases: int = 30_000, seed: int = 1) -> list[Clip]:
    """Recordings, synthesised words of many voices, and synthesised phrases of few voices."""
    clips = read_corpus(data)
    words = command_words(clips)
    sentences = (data / "text" / "ljspeech_sentences.txt").read_text().splitlines()
    clips += synthesise(word_jobs(words, seed), cache / "words")
    clips += synthesise(phrase_jobs(sentences, phrases, seed), cache / "phrases")
    return clips


def tokenizer_words(clips: list[Clip]) -> list[str]:
    """The words that get a token each: the closed vocabulary without the one-off words of `mycroft_words`."""
    return command_words([clip for clip in clips if clip.collection != "mycroft_words"])
