"""Generates the messages of the gRPC door from its .proto files: `python -m tools.make_protos`.

The generated modules import each other by where they are in our package, and leave out the check that the library is
as new as the compiler was: they use nothing that protobuf 6.31 does not have.
"""

from __future__ import annotations

import re
import tempfile
from importlib.resources import files
from pathlib import Path

__all__ = ["RIVA", "generated"]

RIVA = Path(__file__).parents[1] / "src" / "conure" / "protocols" / "riva"
MODULES = ("riva_common", "riva_audio", "riva_asr")
FOLDER = "riva/proto"
"""Where the files are in the names by which other programs know them."""
VERSION_CHECK = re.compile(
    r"# Protobuf Python Version.*\n|from google\.protobuf import runtime_version.*\n|"
    r"_runtime_version\.ValidateProtobufRuntimeVersion\([^)]*\)\n"
)


def generated() -> dict[str, str]:
    """Name of each file to its text."""
    from grpc_tools import protoc  # noqa: PLC0415  whoever only asks where the files are does without

    with tempfile.TemporaryDirectory() as out:
        arguments = [
            f"-I{FOLDER}={RIVA / 'protos'}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            *(f"{FOLDER}/{name}.proto" for name in MODULES),
        ]
        if protoc.main(["protoc", *arguments]):
            raise SystemExit("protoc refused the .proto files")
        written = sorted((Path(out) / FOLDER).iterdir())
        return {path.name: _ours(path.read_text()) for path in written}


def _ours(text: str) -> str:
    text = text.replace("from riva.proto import", "from conure.protocols.riva import")
    text = text.replace("'riva.proto.riva_", "'conure.protocols.riva.riva_")
    return VERSION_CHECK.sub("", text)


def main() -> None:
    for name, text in generated().items():
        (RIVA / name).write_text(text)


if __name__ == "__main__":
    main()
