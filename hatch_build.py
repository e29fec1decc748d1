"""Compiles the native kernels into the wheel where there is a compiler; without one the package goes without them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/conure/native")
SOURCE, LIBRARY = FOLDER / "source" / "kernels.cpp", FOLDER / "_kernels.so"
# The C++ library goes into the file, so that it runs beside any other. Where a product and a sum become one operation
# is written in the source: compilers choose by what is around them, and rows would differ by how many they are. GCC
# takes its own intrinsics for uninitialised.
FLAGS = (
    "-std=c++17 -O3 -ffp-contract=off -fPIC -shared -pthread -s -static-libstdc++ -static-libgcc -Wall -Wextra"
    " -Wno-uninitialized"
)
COMPILERS = ("c++", "g++", "clang++")


class KernelHook(BuildHookInterface):  # type: ignore[misc]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or platform.machine().lower() not in ("x86_64", "amd64"):
            return
        compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
        if compiler is None or not self._compiled(compiler):
            (Path(self.root) / LIBRARY).unlink(missing_ok=True)
            print("conure is built without its native kernels; int8 streams will be slower", file=sys.stderr)
            return
        build_data["artifacts"].append(str(LIBRARY))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def _compiled(self, compiler: str) -> bool:
        command = [*compiler.split(), *FLAGS.split(), str(SOURCE), "-o", str(LIBRARY)]
        try:
            done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        except OSError as error:
            print(f"{compiler}: {error.strerror}", file=sys.stderr)
            return False
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
        return done.returncode == 0
