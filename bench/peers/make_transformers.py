"""Converts the .nemo of `make_nemo` into a transformers folder. Runs in transformers' environment.

python -m bench.peers.make_transformers FOLDER
"""

import sys
from pathlib import Path

from tools.parity.make_hf import KINDS, Archive, build_model, build_processor


def main() -> None:
    folder = Path(sys.argv[1])
    kind = next(kind for kind in KINDS if kind.name == "parakeet_tdt")
    archive = Archive.read(folder / "parakeet.nemo")
    processor = build_processor(kind, archive, folder / "transformers")
    build_model(kind, archive).save_pretrained(folder / "transformers")
    processor.save_pretrained(folder / "transformers")


if __name__ == "__main__":
    main()
