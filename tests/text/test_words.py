"""Tokens to words; tokens are given by their pieces."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from conure.text.tokenizer import SentencePieceTokenizer, is_special_piece
from conure.text.words import join_words, words_from_tokens
from conure.types import Token, Word

STEP = 0.08


class Vocabulary:
    """A tokenizer with the pieces of a test, decoded like SentencePiece."""

    file_name = "labels.json"
    data = b""
    special = frozenset[int]()

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = tuple(pieces)

    def is_special(self, token: int) -> bool:
        return is_special_piece(self.pieces[token])

    def decode(self, ids: Sequence[int]) -> str:
        text = bytearray()
        for piece in (self.pieces[index] for index in ids if not self.is_special(index)):
            text += bytes([int(piece[3:5], 16)]) if piece.startswith("<0x") else piece.replace("▁", " ").encode()
        return text.decode().strip()


def words(*pieces: str, steps: Sequence[tuple[int, int]] = (), confidences: Sequence[float | None] = ()) -> list[Word]:
    spans = steps or [(index, index + 1) for index in range(len(pieces))]
    sure = confidences or [0.9] * len(pieces)
    tokens = [
        Token(id=index, start=start * STEP, end=end * STEP, confidence=confidence)
        for index, ((start, end), confidence) in enumerate(zip(spans, sure, strict=True))
    ]
    return words_from_tokens(tokens, Vocabulary(pieces))


def texts(*pieces: str) -> list[str]:
    return [word.text for word in words(*pieces)]


def test_a_word_lasts_from_its_first_token_to_its_last() -> None:
    made = words("▁hel", "lo", "▁you", steps=[(3, 4), (4, 6), (10, 12)])
    assert [word.text for word in made] == ["hello", "you"]
    assert [(word.start, word.end) for word in made] == [(3 * STEP, 6 * STEP), (10 * STEP, 12 * STEP)]


def test_no_tokens_no_words() -> None:
    assert words() == []
    assert texts("▁", "▁") == []


def test_a_mark_belongs_to_the_word_before_it_and_has_no_duration() -> None:
    made = words("▁yes", ",", "▁no", ".", steps=[(0, 2), (9, 10), (12, 13), (40, 41)])
    assert [word.text for word in made] == ["yes,", "no."]
    assert [word.end for word in made] == [2 * STEP, 13 * STEP]


def test_a_mark_inside_a_word_does_not_end_it() -> None:
    assert texts("▁don", "'", "t", "▁well", "-", "known") == ["don't", "well-known"]
    assert words("▁don", "'", "t", steps=[(0, 1), (1, 2), (2, 5)])[0].end == 5 * STEP


def test_a_mark_after_a_blank_belongs_to_the_word_before_it() -> None:
    assert texts("▁hello", "▁,", "▁you", "▁", "?") == ["hello,", "you?"]


def test_an_opening_mark_belongs_to_the_word_after_it() -> None:
    made = words("▁Hola", ".", "▁¿", "C", "ómo", "?", steps=[(0, 1), (1, 2), (3, 4), (20, 21), (21, 22), (22, 23)])
    assert [word.text for word in made] == ["Hola.", "¿Cómo?"]
    assert made[1].start == 20 * STEP
    assert texts("▁he", "▁(", "she", ")", "▁said", "▁«", "no", "»") == ["he", "(she)", "said", "«no»"]
    assert texts("▁rock", "▁'", "n", "'", "▁roll") == ["rock", "'n'", "roll"]


def test_a_separate_blank_begins_a_word() -> None:
    made = words("▁a", "▁", "b", "c", steps=[(0, 1), (4, 5), (5, 6), (6, 7)], confidences=[0.9, 0.2, 0.8, 0.7])
    assert [word.text for word in made] == ["a", "bc"]
    assert made[1].start == 4 * STEP
    assert made[1].confidence == 0.2


def test_characters_are_separated_by_blanks() -> None:
    assert texts("h", "i", " ", "y", "o", "u", " ", "!") == ["hi", "you!"]


def test_special_tokens_are_not_text() -> None:
    assert texts("<en-US>", "▁hel", "<EOB>", "lo", "<unk>", "<EOU>", "▁you", "<de-DE>") == ["hello", "you"]
    assert texts("<s>", "<pad>", "<|endoftext|>") == []


def test_bytes_become_letters() -> None:
    assert texts("▁caf", "<0xC3>", "<0xA9>", "▁now") == ["café", "now"]


def test_the_confidence_of_a_word_is_the_minimum_of_its_tokens() -> None:
    made = words("▁hel", "lo", ".", "▁you", confidences=[0.9, 0.4, 0.3, None])
    assert [word.confidence for word in made] == [0.3, None]


def test_a_token_without_duration_ends_where_it_starts() -> None:
    assert words("▁a", steps=[(4, 4)])[0].end == 4 * STEP


def test_scripts_without_blanks_are_split_at_full_width_marks() -> None:
    made = words("▁今天", "天气", "很好", "。", "我们", "走", "吧", "！", "”", "▁OK")
    assert [word.text for word in made] == ["今天天气很好。", "我们走吧！”", "OK"]
    assert join_words(made) == "今天天气很好。我们走吧！” OK"
    assert texts("▁한국", "어", "▁좋아", "요") == ["한국어", "좋아요"]


def test_joined_words_are_the_text() -> None:
    assert join_words([]) == ""
    assert join_words([Word("Yes,"), Word("no."), Word("。")]) == "Yes, no. 。"


PARITY = Path(__file__).parent.parent / "data" / "parity"


@pytest.mark.parametrize("name", ["tdt", "tdt_bias", "tdt_ctc", "rnnt", "nemotron"])
def test_words_equal_those_of_nemo(name: str) -> None:
    """NeMo's tokens result in NeMo's words, times and confidences."""
    facts = json.loads((PARITY / f"{name}.reference.json").read_text())
    arrays = load_file(PARITY / f"{name}.reference.safetensors")
    tokenizer = tokenizer_of(PARITY / f"{name}.nemo")
    for row, expected in enumerate(facts["words"]):
        made = words_from_tokens(tokens_of(arrays, row), tokenizer)
        assert [word.text for word in made] == expected
        assert join_words(made) == facts["texts"][row]
        count = len(expected)
        confidences = [word.confidence or 0.0 for word in made]
        assert confidences == pytest.approx(arrays["word_confidence"][row, :count].tolist(), abs=1e-6)
        starts = [round((word.start or 0.0) / STEP) for word in made]
        ends = [round((word.end or 0.0) / STEP) for word in made]
        assert starts == arrays["word_starts"][row, :count].tolist()
        for word, end, end_of_nemo in zip(expected, ends, arrays["word_ends"][row].tolist(), strict=False):
            if "durations" in arrays or word[-1].isalpha():
                assert end == end_of_nemo
            else:  # there a mark extends the word in NeMo
                assert end < end_of_nemo


def tokenizer_of(archive: Path) -> SentencePieceTokenizer:
    with tarfile.open(archive) as members:
        name = next(name for name in members.getnames() if name.endswith("_tokenizer.model"))
        return SentencePieceTokenizer((members.extractfile(name) or io.BytesIO()).read())


def tokens_of(arrays: dict[str, np.ndarray], row: int) -> list[Token]:
    count = int(arrays["token_counts"][row])
    steps = arrays["steps"][row, :count].tolist()
    durations = arrays["durations"][row, :count].tolist() if "durations" in arrays else [1] * count
    ids = arrays["tokens"][row, :count].tolist()
    confidences = arrays["token_confidence"][row, :count].tolist()
    return [
        Token(token, step * STEP, (step + duration) * STEP, None, confidence)
        for token, step, duration, confidence in zip(ids, steps, durations, confidences, strict=True)
    ]
