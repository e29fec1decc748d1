"""`conure` that soon takes a process for hung."""

from conure.cli.main import run
from conure.processes import supervisor as crew

if __name__ == "__main__":
    crew.LOOK = 0.5
    run()
