"""`conure` whose first engine works, and whose later ones die at their start."""

import os
import signal
from typing import Any

from conure.cli.main import run
from conure.engine.ipc import transport
from conure.engine.main import run_engine_process
from conure.engine.plan import Plan


def work_once(plan: Plan, *rest: Any) -> None:
    """In the place of `transport._work`. A file in the plan's cache tells the next engine that there was one."""
    assert plan.cache_folder
    was_there = plan.cache_folder / f"engine-of-{os.getppid()}"
    if was_there.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    was_there.touch()
    run_engine_process(plan, *rest)


if __name__ == "__main__":
    transport._run_engine = work_once
    run()
