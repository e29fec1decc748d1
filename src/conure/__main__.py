"""`python -m conure` is `conure`."""

from conure.cli.main import run

if __name__ == "__main__":
    run()
