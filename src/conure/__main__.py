"""`python -m conure` is `conure`.

Processes that are started by another one of ours read the file it was started from again: it loads nothing.
"""


def run() -> None:
    from conure.cli.main import run as run_command  # noqa: PLC0415

    run_command()


if __name__ == "__main__":
    run()
