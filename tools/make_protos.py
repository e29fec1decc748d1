"""Generates the messages of the Riva protocol from its .proto files: `python -m tools.make_protos`.

Imports of generated modules are rewritten to their place in the package. The version check of protobuf is removed,
since the modules work with protobuf 6.31, which is older than the compiler.
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
"""Folder of the files in their public proto names."""
VERSION_CHECK = re.compile(
    r"# Protobuf Python Version.*\n|from google\.protobuf import runtime_version.*\n|"
    r"_runtime_version\.ValidateProtobufRuntimeVersion\([^)]*\)\n"
)


def generated() -> dict[str, str]:
    """Generated text by file name."""
    from grpc_tools import protoc  # noqa: PLC0415  not needed for RIVA

    with tempfile.TemporaryDirectory() as out:
        arguments = [
            f"-I{FOLDER}={RIVA / 'protos'}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            *(f"{FOLDER}/{name}.proto" for name in MODULES),
        ]
        if protoc.main(["protoc", *arguments]):
            raise SystemExit("protoc failed on the .proto files")
        written = sorted((Path(out) / FOLDER).iterdir())
        return {path.name: _fix_imports(path.read_text()) for path in written}


def _fix_imports(text: str) -> str:
    text = text.replace("from riva.proto import", "from conure.protocols.riva import")
    text = text.replace("'riva.proto.riva_", "'conure.protocols.riva.riva_")
    return VERSION_CHECK.sub("", text)


def main() -> None:
    for name, text in generated().items():
        (RIVA / name).write_text(text)


if __name__ == "__main__":
    main()
