"""Tokenizers: SentencePiece models, tokenizers of Hugging Face, lists of labels.

Pieces mark the beginning of a word with "▁", except labels. Special tokens (ends of utterance, language tags, the
unknown token, padding) belong to the vocabulary but not to texts. The blank is not part of the vocabulary: its id is
the vocabulary's size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Protocol

import sentencepiece
import tokenizers

from conure.errors import BadCheckpoint
from conure.safe_text import one_line

__all__ = [
    "HuggingFaceTokenizer",
    "LabelTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WORD_START",
    "is_special_piece",
    "language_of_piece",
    "read_tokenizer",
]

MAX_REASON_LENGTH = 80
"""Characters of a library's error message that are quoted."""

WORD_START = "▁"
MAX_BYTES = 64 * 2**20

_LANGUAGE_TAG = re.compile(r"<([a-z]{2,3}(?:-[A-Za-z]{2,4}|-[0-9]{3})+)>")
_SPECIAL = re.compile(r"<(?:EOU|EOB|unk|pad|blank|s|/s|bos|eos|\|[^|>]*\|)>")


def language_of_piece(piece: str) -> str | None:
    """The language of a tag such as <en-US>, else None."""
    match = _LANGUAGE_TAG.fullmatch(piece.removeprefix(WORD_START))
    return match[1] if match else None


def is_special_piece(piece: str) -> bool:
    """True for pieces that never belong to a text: <EOU>, <EOB>, <unk>, <pad>, <|tag|>, <xx-XX>."""
    return _SPECIAL.fullmatch(piece.removeprefix(WORD_START)) is not None or language_of_piece(piece) is not None


class Tokenizer(Protocol):
    """Maps token ids of a checkpoint to text."""

    file_name: str
    """Name of the file with `data` in a checkpoint folder; it determines the kind of tokenizer."""

    @property
    def data(self) -> bytes:
        """The file that this tokenizer was read from."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """The piece of each id."""

    @property
    def special(self) -> frozenset[int]:
        """Ids of special tokens, which are removed from texts."""

    def is_special(self, token: int) -> bool:
        """Whether a token is special."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special ones."""


class _Pieces:
    """Base class: pieces and special tokens."""

    def __init__(self, data: bytes, pieces: tuple[str, ...], special: frozenset[int] = frozenset()) -> None:
        self.data = data
        self.pieces = pieces
        self.special = special | {index for index, piece in enumerate(pieces) if is_special_piece(piece)}

    def is_special(self, token: int) -> bool:
        return token in self.special

    def without_special(self, ids: Sequence[int]) -> list[int]:
        return [index for index in ids if index not in self.special]


class SentencePieceTokenizer(_Pieces):
    """A SentencePiece model, as in NeMo archives."""

    file_name = "tokenizer.model"

    def __init__(self, data: bytes, vocabulary: int | None = None) -> None:
        if not data:  # the library ignores empty data
            raise BadCheckpoint("tokenizer.model is empty")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=data)
        except RuntimeError as error:
            raise BadCheckpoint("tokenizer.model is not a SentencePiece model") from error
        ids = range(self._model.get_piece_size())
        if vocabulary is not None and len(ids) != vocabulary:
            raise _size_mismatch(self.file_name, len(ids), vocabulary)
        hidden = {index for index in ids if self._model.is_control(index) or self._model.is_unknown(index)}
        try:
            pieces = tuple(self._model.id_to_piece(index) for index in ids)
        except UnicodeDecodeError as error:
            raise BadCheckpoint(
                f"tokenizer.model has a piece that is not text: {one_line(str(error), MAX_REASON_LENGTH)}"
            ) from error
        super().__init__(data, pieces, frozenset(hidden))

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._model.decode(self.without_special(ids))
        return text.strip()


class HuggingFaceTokenizer(_Pieces):
    """A tokenizer.json. Tokens after the network's vocabulary (the blank, added padding) are ignored."""

    file_name = "tokenizer.json"

    def __init__(self, data: bytes, vocabulary: int | None = None) -> None:
        try:
            self._model = tokenizers.Tokenizer.from_str(data.decode())
        except BaseException as error:  # the library has no specific errors, and its panics are not of type Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise BadCheckpoint(
                f"tokenizer.json is not a tokenizer: {one_line(str(error), MAX_REASON_LENGTH)}"
            ) from error
        size = self._model.get_vocab_size(with_added_tokens=True)
        pieces = tuple(self._model.id_to_token(index) or "" for index in range(min(size, vocabulary or size)))
        added = self._model.get_added_tokens_decoder()
        super().__init__(data, pieces, frozenset(index for index, token in added.items() if token.special))

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._model.decode(self.without_special(ids), skip_special_tokens=True)
        return text.strip()


class LabelTokenizer(_Pieces):
    """A list of labels, usually letters, that are concatenated."""

    file_name = "labels.json"

    def __init__(self, labels: Sequence[str]) -> None:
        pieces = tuple(labels)
        super().__init__(json.dumps(pieces, ensure_ascii=False).encode(), pieces)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[index] for index in self.without_special(ids)).replace(WORD_START, " ").strip()


def read_tokenizer(file_name: str, data: bytes, vocabulary: int | None = None) -> Tokenizer:
    """Reads a tokenizer; the file's name determines its kind. Its size must be `vocabulary`, that of the network."""
    if len(data) > MAX_BYTES:
        raise BadCheckpoint(f"{file_name} has {len(data):,} bytes; a tokenizer has less than {MAX_BYTES:,}")
    tokenizer: Tokenizer
    if file_name.endswith(".model"):
        tokenizer = SentencePieceTokenizer(data, vocabulary)
    elif file_name.endswith("labels.json"):
        tokenizer = LabelTokenizer(_labels(data))
    elif file_name.endswith(".json"):
        tokenizer = HuggingFaceTokenizer(data, vocabulary)
    else:
        raise BadCheckpoint(f"unsupported tokenizer file {file_name!r}")
    if vocabulary is not None and len(tokenizer.pieces) != vocabulary:
        raise _size_mismatch(file_name, len(tokenizer.pieces), vocabulary)
    return tokenizer


def _size_mismatch(file_name: str, tokens: int, vocabulary: int) -> BadCheckpoint:
    return BadCheckpoint(f"{file_name} has {tokens} tokens and the network {vocabulary}: they belong to two models")


def _labels(data: bytes) -> list[str]:
    try:
        labels = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint("labels.json is not JSON") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise BadCheckpoint("labels.json is not a list of labels")
    try:
        "".join(labels).encode()
    except UnicodeEncodeError as error:
        raise BadCheckpoint(
            f"labels.json has a label that is not text: {one_line(str(error), MAX_REASON_LENGTH)}"
        ) from error
    return labels
