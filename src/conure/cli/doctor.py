"""`conure doctor`: checks the installation and prints the command that fixes each problem."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from cyclopts import App

from conure.cli.machine_checks import Check, check_machine, check_packages
from conure.cli.outputs import write_stdout
from conure.cli.reporter import DEFAULT_COMMON, DONE, FAILED, Common
from conure.cli.tables import table

__all__ = ["app", "doctor"]

EXAMPLES = """\
Examples:
  conure doctor
  conure doctor --json
"""

app = App(
    name="doctor",
    help="Check the installation.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def doctor(*, common: Common = DEFAULT_COMMON) -> int:
    """Check the installation and print the command that fixes each problem. Exit code 1 if something is missing."""
    common.begin()
    checks = _check_all()
    is_healthy = all(check.ok for check in checks)
    if common.json:
        report = {"ok": is_healthy, "checks": [asdict(check) for check in checks]}
        write_stdout(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    else:
        write_stdout(_as_text(checks))
    return DONE if is_healthy else FAILED


def _check_all() -> list[Check]:
    packages = check_packages()
    checks = [*packages, *check_machine()]
    if all(check.ok for check in packages):
        from conure.cli.setup_checks import check_setup  # noqa: PLC0415  imports those packages

        checks += check_setup()
    return checks


def _as_text(checks: Sequence[Check]) -> str:
    rows = [("ok" if check.ok else "MISSING", check.name, check.found) for check in checks]
    missing = [check for check in checks if not check.ok]
    verdict = f"{len(missing)} to fix" if missing else "nothing is missing"
    fixes = "".join(f"  {check.fix}\n" for check in checks if check.fix)
    heading = "To fix it:\n" if missing else "Worth doing:\n"
    return table(rows) + f"\n{verdict}\n" + (f"\n{heading}{fixes}" if fixes else "")
