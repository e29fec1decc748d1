"""A small sentencepiece BPE tokenizer of artificial words, in NeMo's tokenizer folder layout."""

import random
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

CONSONANTS = "bdfgklmnprstvz"
VOWELS = "aeiou"


def artificial_sentence(rng: random.Random) -> str:
    """Eight artificial words with the punctuation that real models have in their vocabulary."""
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(8)]
    words[3] += ","
    return " ".join(words) + rng.choice(".?")


def write_sentences(path: Path, count: int = 4000) -> None:
    """Write the sentences that the tokenizer is trained on."""
    rng = random.Random(0)
    path.write_text("".join(artificial_sentence(rng) + "\n" for _ in range(count)))


def make_tokenizer(folder: Path, vocab_size: int, extra: tuple[str, ...] = ()) -> None:
    """Train a BPE model of `vocab_size` pieces and append `extra` as whole tokens at the end, the way tags are added
    to a tokenizer that already exists."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = folder / "sentences.txt"
    write_sentences(sentences)
    sentencepiece.SentencePieceTrainer.train(
        input=str(sentences),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=vocab_size - len(extra),
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        character_coverage=1.0,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    sentences.unlink()
    append_pieces(folder / "tokenizer.model", extra)
    write_vocabularies(folder)


def append_pieces(model_path: Path, extra: tuple[str, ...]) -> None:
    """Add user-defined pieces behind the trained ones, so that the ids of those do not move.

    The names of the files it was trained on are dropped: they would differ from run to run.
    """
    model = sentencepiece_model_pb2.ModelProto.FromString(model_path.read_bytes())
    model.trainer_spec.ClearField("input")
    model.trainer_spec.ClearField("model_prefix")
    for piece in extra:
        kind = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
        model.pieces.add(piece=piece, score=0.0, type=kind)
    model_path.write_bytes(model.SerializeToString())


def write_vocabularies(folder: Path) -> None:
    """Write vocab.txt and tokenizer.vocab, which NeMo archives next to the model."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    scores = [processor.get_score(i) for i in range(processor.get_piece_size())]
    with (folder / "vocab.txt").open("w") as file:
        file.writelines(piece.replace("▁", "##") + "\n" for piece in pieces[1:])
    with (folder / "tokenizer.vocab").open("w") as file:
        file.writelines(f"{piece}\t{score:g}\n" for piece, score in zip(pieces, scores, strict=True))
