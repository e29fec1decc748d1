"""`conure` with an engine whose device fails once."""

from conure.cli.main import run
from conure.engine.ipc import transport
from tests.engine.failing_device import work_until_the_device_fails

if __name__ == "__main__":
    transport._run_engine = work_until_the_device_fails
    run()
