"""The subword tokenizer and its training.

A unigram sentencepiece model without sentence marks; unknown is 0 as in NeMo's checkpoints. Words of the short
recordings are repeated until each is one piece, as a spelled word such as "seven" has too few steps of 80 ms.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import sentencepiece

VOCABULARY = 384
END = "<EOU>"
"""The token that ends an utterance, written as NVIDIA's checkpoints write it."""
_REPETITIONS = 1500


class Tokenizer:
    """Words to token ids and back; a space starts a word, so words can be encoded one by one."""

    def __init__(self, model: Path) -> None:
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        self.size: int = self.processor.get_piece_size()
        self.word = lru_cache(maxsize=None)(self._word)

    def _word(self, word: str) -> tuple[int, ...]:
        return (self.processor.piece_to_id(END),) if word == END else tuple(self.processor.encode(word))

    def text(self, tokens: Sequence[int]) -> str:
        return self.processor.decode(list(tokens)).replace(END, "").strip()


def train_tokenizer(phrases: Sequence[str], words: Sequence[str], marks_ends: bool, model: Path) -> Tokenizer:
    """Train on phrases and repeated words, write `model` and load it; with `marks_ends` it contains END."""
    sentences = [*phrases, *(word for word in words for _ in range(_REPETITIONS))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(model.with_suffix("")),
        vocab_size=VOCABULARY,
        model_type="unigram",
        character_coverage=1.0,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        user_defined_symbols=[END] if marks_ends else [],
        num_threads=1,
        minloglevel=2,
    )
    return Tokenizer(model)
