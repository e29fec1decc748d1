"""`python -m conure` is `conure`.

Child processes that are spawned import this module again, so it imports nothing else at its top level.
"""


def run() -> None:
    from conure.cli.main import run as run_command  # noqa: PLC0415

    run_command()


if __name__ == "__main__":
    run()
