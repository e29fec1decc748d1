"""Token ids to pieces to text: SentencePiece models, tokenizers of Hugging Face, plain lists of labels.

Pieces of all three mark the beginning of a word with "▁", plain labels excepted. Special tokens (ends of
utterance, language tags, the unknown token, padding) are part of a vocabulary and never of a text. The blank
is no token of a vocabulary: its id is the vocabulary's size.
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

LONGEST_REASON = 80
"""Characters of a library's own word on what is wrong."""

WORD_START = "▁"
MAX_BYTES = 64 * 2**20

_LANGUAGE_TAG = re.compile(r"<([a-z]{2,3}(?:-[A-Za-z]{2,4}|-[0-9]{3})+)>")
_SPECIAL = re.compile(r"<(?:EOU|EOB|unk|pad|blank|s|/s|bos|eos|\|[^|>]*\|)>")


def language_of_piece(piece: str) -> str | None:
    """The language that a tag such as <en-US> names, else None."""
    match = _LANGUAGE_TAG.fullmatch(piece.removeprefix(WORD_START))
    return match[1] if match else None


def is_special_piece(piece: str) -> bool:
    """True for what never belongs to a text: <EOU>, <EOB>, <unk>, <pad>, <|tag|>, <xx-XX>."""
    return _SPECIAL.fullmatch(piece.removeprefix(WORD_START)) is not None or language_of_piece(piece) is not None


class Tokenizer(Protocol):
    """What the ids of a checkpoint mean."""

    file_name: str
    """Name under which `data` is stored beside the weights; it tells the kind."""

    @property
    def data(self) -> bytes:
        """The file that this tokenizer was read from."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """Piece of each id, as the model knows it."""

    @property
    def special(self) -> frozenset[int]:
        """Ids that are stripped from texts."""

    def is_special(self, token: int) -> bool:
        """Whether a token is stripped from texts."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens; special ones give none."""


class _Pieces:
    """Pieces and which of them are special."""

    def __init__(self, data: bytes, pieces: tuple[str, ...], special: frozenset[int] = frozenset()) -> None:
        self.data = data
        self.pieces = pieces
        self.special = special | {index for index, piece in enumerate(pieces) if is_special_piece(piece)}

    def is_special(self, token: int) -> bool:
        return token in self.special

    def plain(self, ids: Sequence[int]) -> list[int]:
        return [index for index in ids if index not in self.special]


class SentencePieceTokenizer(_Pieces):
    """A SentencePiece model, as NeMo archives hold it."""

    file_name = "tokenizer.model"

    def __init__(self, data: bytes, vocabulary: int | None = None) -> None:
        if not data:  # the library takes no bytes for "load nothing"
            raise BadCheckpoint("tokenizer.model is empty")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=data)
        except RuntimeError as error:
            raise BadCheckpoint("tokenizer.model is not a SentencePiece model") from error
        ids = range(self._model.get_piece_size())
        if vocabulary is not None and len(ids) != vocabulary:
            raise _of_another_model(self.file_name, len(ids), vocabulary)
        hidden = {index for index in ids if self._model.is_control(index) or self._model.is_unknown(index)}
        try:
            pieces = tuple(self._model.id_to_piece(index) for index in ids)
        except UnicodeDecodeError as error:
            raise BadCheckpoint(
                f"tokenizer.model has a piece that is no text: {one_line(str(error), LONGEST_REASON)}"
            ) from error
        super().__init__(data, pieces, frozenset(hidden))

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._model.decode(self.plain(ids))
        return text.strip()


class HuggingFaceTokenizer(_Pieces):
    """A tokenizer.json. Tokens past the network's vocabulary (the blank, added padding) are left out."""

    file_name = "tokenizer.json"

    def __init__(self, data: bytes, vocabulary: int | None = None) -> None:
        try:
            self._model = tokenizers.Tokenizer.from_str(data.decode())
        except BaseException as error:  # the library raises nothing narrower, and panics are no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise BadCheckpoint(f"tokenizer.json is not a tokenizer: {one_line(str(error), LONGEST_REASON)}") from error
        size = self._model.get_vocab_size(with_added_tokens=True)
        pieces = tuple(self._model.id_to_token(index) or "" for index in range(min(size, vocabulary or size)))
        added = self._model.get_added_tokens_decoder()
        super().__init__(data, pieces, frozenset(index for index, token in added.items() if token.special))

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._model.decode(self.plain(ids), skip_special_tokens=True)
        return text.strip()


class LabelTokenizer(_Pieces):
    """A list of labels, mostly letters, that are put together as they are."""

    file_name = "labels.json"

    def __init__(self, labels: Sequence[str]) -> None:
        pieces = tuple(labels)
        super().__init__(json.dumps(pieces, ensure_ascii=False).encode(), pieces)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[index] for index in self.plain(ids)).replace(WORD_START, " ").strip()


def read_tokenizer(file_name: str, data: bytes, vocabulary: int | None = None) -> Tokenizer:
    """The tokenizer in a file, whose name tells its kind. `vocabulary` is the network's, and must agree."""
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
        raise BadCheckpoint(f"no tokenizer we know is stored as {file_name!r}")
    if vocabulary is not None and len(tokenizer.pieces) != vocabulary:
        raise _of_another_model(file_name, len(tokenizer.pieces), vocabulary)
    return tokenizer


def _of_another_model(file_name: str, tokens: int, vocabulary: int) -> BadCheckpoint:
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
            f"labels.json has a label that is no text: {one_line(str(error), LONGEST_REASON)}"
        ) from error
    return labels
