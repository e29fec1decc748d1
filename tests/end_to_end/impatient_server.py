"""`conure` that checks its server processes often, so that a hung one is soon killed."""

from conure.cli.main import run
from conure.processes import supervisor

if __name__ == "__main__":
    supervisor.CHECK_INTERVAL = 0.5
    run()
