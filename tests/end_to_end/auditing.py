"""Records the addresses that a process and its children connect to, and the files that they write."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Audit", "has_strace"]

HOOK = Path(__file__).parent / "audit_hook"
"""A folder with a `sitecustomize.py`, for machines without strace: it sees what goes through Python alone."""
CI = (
    *("CI", "GITHUB_ACTIONS", "TF_BUILD", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID"),
    *("BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER", "ORT_RUNNING_UNIT_TESTS", "DO_NOT_TRACK"),
)
"""Where one of these is set libraries send nothing anyway, and a test would prove nothing."""
ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
HERE = re.compile(r"127\.|::1$|::ffff:127\.|0\.0\.0\.0$|::$")
NAMES = re.compile(r"port=htons\(53\)|/systemd/resolve/")
"""How a name is looked up where the name server is on this machine."""


@functools.cache
def has_strace() -> bool:
    """Whether it is there and may trace: containers can forbid that."""
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Audit:
    """Of one command line, in a folder of its own."""

    folder: Path

    def __post_init__(self) -> None:
        for name in ("home", "work"):
            (self.folder / name).mkdir()

    @property
    def work(self) -> Path:
        """Where it is run."""
        return self.folder / "work"

    def command(self, line: Sequence[str]) -> list[str]:
        """The line under audit."""
        if not has_strace():
            return list(line)
        traced = "trace=connect,sendto,sendmsg,sendmmsg"
        return ["strace", "-f", "-qq", "--seccomp-bpf", "-s", "200", "-e", traced, "-o", str(self._trace), *line]

    def environment(self, **more: str) -> Mapping[str, str]:
        """As of somebody who has set nothing: caches and settings go below a folder that is empty at first."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in CI and not name.startswith(("CONURE_", "HF_", "ORT_", "XDG_"))
        }
        path = [str(HOOK)] * (not has_strace()) + [entry for entry in sys.path if entry]
        own = {"HOME": str(self.folder / "home"), "AUDIT_FILE": str(self._hooked), "PYTHONPATH": os.pathsep.join(path)}
        return kept | own | more

    def outside(self) -> list[str]:
        """What was said to anything that is not this machine, a line each: packets for a name server among it."""
        traced = self._trace.read_text(errors="replace").splitlines() if self._trace.exists() else []
        lines = [line for line in traced if _leaves(line)]
        return lines + (self._hooked.read_text().splitlines() if self._hooked.exists() else [])

    def written(self) -> list[str]:
        """Files below the home and the working folder."""
        found = (path for name in ("home", "work") for path in (self.folder / name).rglob("*"))
        return sorted(str(path.relative_to(self.folder)) for path in found if not path.is_dir())

    @property
    def _trace(self) -> Path:
        return self.folder / "trace"

    @property
    def _hooked(self) -> Path:
        return self.folder / "hooked"


def _leaves(line: str) -> bool:
    hosts = [one or other for one, other in ADDRESS.findall(line)]
    return bool(NAMES.search(line)) or not all(HERE.match(host) for host in hosts)
