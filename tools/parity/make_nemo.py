"""Make one small checkpoint per model family with NeMo, and the numbers NeMo computes with it.

Run in NeMo's environment, see setup.sh:
    python -m tools.parity.make_nemo --out tests/data/parity [--only tdt nemotron] [--full]
"""

import argparse
import random
import re
import tempfile
from pathlib import Path

import torch

from tools.parity.audio import load_audio
from tools.parity.families import DURATIONS, FAMILIES, FULL, SMALL, Family, Size
from tools.parity.nemo_decode import use_transducer_decoding
from tools.parity.nemo_model import build_model, save_archive
from tools.parity.nemo_reference import Reference, make_reference, save_mel, variants
from tools.parity.storage import save_reference
from tools.parity.teach import choose_tokens, ctc_targets, teach_ctc, teach_transducer, transducer_path
from tools.parity.weights import randomize, round_to_bfloat16

FULL_FAMILIES = ("tdt", "nemotron", "ctc", "tdt_bias", "nemotron_prompt")
UNCOMPRESSED = ("tdt", "nemotron")
# A closer decision could depend on the order of additions.
SMALLEST_MARGIN = 1e-3
SEEDS = range(7, 67)


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    audio, lengths = load_audio(options.audio)
    names = options.only or ([f.name for f in FAMILIES] if not options.full else list(FULL_FAMILIES))
    for family in (family for family in FAMILIES if family.name in names):
        make_family(family, FULL if options.full else SMALL, options.out, audio, lengths)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--audio", type=Path, default=Path("tests/data/parity"), help="folder of audio.safetensors")
    parser.add_argument("--only", nargs="*", help="names of families")
    parser.add_argument("--full", action="store_true", help="real sizes (24 x 1024), for comparisons by hand")
    return parser.parse_args()


def make_family(family: Family, size: Size, out: Path, audio: torch.Tensor, lengths: torch.Tensor) -> None:
    """Find weights whose decisions are clear, then write the archive and its reference."""
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(family, size, Path(folder) / "tokenizer")
        reference, seed = find_clear_reference(model, family, audio, lengths)
        path = out / f"{family.name}.nemo"
        if size is FULL:
            model.save_to(str(path))  # not repacked, which would hold gigabytes in memory
        else:
            save_archive(model, path, compress=family.name not in UNCOMPRESSED)
    reference.facts["seed"] = seed
    save_reference(out, f"{family.name}.reference", reference.tensors, reference.facts)
    save_mel(out / "mel.safetensors", reference)
    counts = reference.tensors.get("token_counts", reference.tensors.get("ctc_token_counts")).tolist()
    print(f"{family.name}: seed {seed}, {counts} tokens, margin {smallest_margin(reference):.2g}", flush=True)


def find_clear_reference(model, family: Family, audio, lengths) -> tuple[Reference, int]:
    """Tries seeds until no decision of the reference is close to a tie."""
    for seed in SEEDS:
        randomize(model, seed)
        round_to_bfloat16(model)
        teach_heads(model, family, audio, lengths, random.Random(f"{family.name} {seed}"))
        round_to_bfloat16(model)
        with torch.inference_mode():
            reference = make_reference(model, family, audio, lengths)
        if smallest_margin(reference) > SMALLEST_MARGIN and is_varied(reference):
            return reference, seed
    raise RuntimeError(f"{family.name}: no seed gives clear and varied decisions")


def is_varied(reference: Reference) -> bool:
    """Whether every clip has tokens and there are several different ones: one repeated token proves little."""
    tables = [table for name, table in reference.tensors.items() if re.match(r"(ctc_)?tokens", name)]
    rows = [row[row >= 0] for table in tables for row in table]
    return all(len(row) >= 2 and len(row.unique()) >= 2 for row in rows) and len(torch.cat(rows).unique()) >= 8


def smallest_margin(reference: Reference) -> float:
    """The closest decision anywhere in the reference."""
    return min(value for key, value in reference.facts.items() if "margin" in key)


def teach_heads(model, family: Family, audio, lengths, chooser: random.Random) -> None:
    """Give every head a sentence per clip, at every context the family has."""
    with torch.no_grad():
        views, steps = encoder_views(Reference(model, family, audio, lengths))
    blank = model.tokenizer.tokenizer.get_piece_size()
    extra = model.tokenizer.tokens_to_ids(list(family.extra_tokens))
    sentences = [choose_tokens(model.tokenizer, length, extra, chooser) for length in steps]
    losses = []
    if family.head != "ctc":
        use_transducer_decoding(model, family)
        longest = max(DURATIONS) if family.head == "tdt" else 0
        paths = [
            transducer_path(tokens, length, blank, longest, chooser)
            for tokens, length in zip(sentences, steps, strict=True)
        ]
        losses.append(teach_transducer(model, views, paths, family.head == "tdt"))
    if family.head == "ctc" or family.hybrid:
        labels = [ctc_targets(tokens, length, blank, chooser) for tokens, length in zip(sentences, steps, strict=True)]
        losses.append(teach_ctc(model.ctc_decoder if family.hybrid else model.decoder, views, labels))
    print(f"{family.name}: losses {losses}", flush=True)


def encoder_views(reference: Reference) -> tuple[list, list[int]]:
    """The encoder's output [B, D, T] in every way it is used, and the number of steps per clip."""
    found = list(variants(reference))
    return [encoded for _, encoded, _ in found], found[0][2].tolist()


if __name__ == "__main__":
    main()
