"""`conure` whose engines hang at their start."""

import time
from typing import Any

from conure.cli.main import run
from conure.engine.ipc import transport


def hang(*_: Any) -> None:
    """In the place of `transport._work`."""
    while True:
        time.sleep(60)


if __name__ == "__main__":
    transport._run_engine = hang
    run()
