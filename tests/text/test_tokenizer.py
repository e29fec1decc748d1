"""Ids to pieces to text, for every kind of tokenizer in checkpoints."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
import sentencepiece
import tokenizers

from conure.errors import BadCheckpoint
from conure.text.tokenizer import is_special_piece, language_of_piece, read_tokenizer

SENTENCES = ["the cat sat on the mat", "a dog ran over a log", "we sing and they dance"] * 20


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        vocab_size=40,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        user_defined_symbols=["<EOU>", "<EOB>", "<en-US>"],
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()


def hugging_face(blank: str | None = "<blank>") -> bytes:
    vocabulary = {"<unk>": 0, "▁the": 1, "▁cat": 2, "s": 3, "<de-DE>": 4}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="<unk>"))
    model.decoder = tokenizers.decoders.Metaspace()
    if blank is not None:
        model.add_special_tokens([blank])
    return model.to_str().encode()


def test_sentencepiece_pieces_and_text(sentencepiece_model: bytes) -> None:
    tokenizer = read_tokenizer("tokenizer.model", sentencepiece_model, 40)
    ids = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model).encode("the cat sat")
    assert tokenizer.decode(ids) == "the cat sat"
    assert "".join(tokenizer.pieces[index] for index in ids).replace("▁", " ").strip() == "the cat sat"
    assert tokenizer.data == sentencepiece_model


def test_special_tokens_have_no_text(sentencepiece_model: bytes) -> None:
    tokenizer = read_tokenizer("tokenizer.model", sentencepiece_model)
    special = [tokenizer.pieces.index(piece) for piece in ("<EOU>", "<EOB>", "<en-US>", "<unk>")]
    assert set(special) == tokenizer.special
    assert all(tokenizer.is_special(index) for index in special)
    ids = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model).encode("the cat")
    assert tokenizer.decode([special[2], *ids, special[0], special[3]]) == "the cat"


def test_hugging_face_pieces_and_text() -> None:
    tokenizer = read_tokenizer("tokenizer.json", hugging_face(), 5)
    assert tokenizer.pieces == ("<unk>", "▁the", "▁cat", "s", "<de-DE>")
    assert tokenizer.decode([4, 1, 2, 3, 0]) == "the cats"


def test_the_blank_of_a_hugging_face_tokenizer_is_not_a_piece() -> None:
    assert len(read_tokenizer("tokenizer.json", hugging_face(), 5).pieces) == 5
    assert len(read_tokenizer("tokenizer.json", hugging_face(blank=None), 5).pieces) == 5


def test_labels_are_concatenated() -> None:
    tokenizer = read_tokenizer("labels.json", json.dumps([" ", "a", "b", "'"]).encode(), 4)
    assert tokenizer.decode([1, 2, 0, 2, 3, 1]) == "ab b'a"
    assert read_tokenizer(tokenizer.file_name, tokenizer.data).pieces == tokenizer.pieces


@pytest.mark.parametrize("size", [4, 6, 39, 41])
def test_a_vocabulary_of_another_size_is_refused(sentencepiece_model: bytes, size: int) -> None:
    with pytest.raises(BadCheckpoint, match="two models"):
        read_tokenizer("tokenizer.model", sentencepiece_model, size)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "labels.json"])
@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[1, 2]", b"{}", b"[" * 100_000])
def test_broken_tokenizers_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(BadCheckpoint) as caught:
        read_tokenizer(name, data)
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(BadCheckpoint, match=r"vocab\.txt"):
        read_tokenizer("vocab.txt", b"a\nb\n")


@pytest.mark.parametrize(
    "piece", ["<EOU>", "<EOB>", "<unk>", "<pad>", "<|nospeech|>", "<en-US>", "<es-419>", "▁<de-DE>"]
)
def test_special_pieces(piece: str) -> None:
    assert is_special_piece(piece)


@pytest.mark.parametrize("piece", ["▁the", "<", ">", "<0x0A>", "en-US", "<3", "▁", "<english>"])
def test_pieces_that_are_not_special(piece: str) -> None:
    assert not is_special_piece(piece)


def test_the_language_of_a_tag() -> None:
    assert language_of_piece("<en-US>") == "en-US"
    assert language_of_piece("<EOU>") is None


def test_tokenizers_do_not_need_torch() -> None:
    code = "import sys, conure.text.tokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
