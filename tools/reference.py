"""Writes the generated tables of docs/reference from the lists in the code.

    python -m tools.reference            rewrite the tables
    python -m tools.reference --check    exit code 1 if a table is out of date

A table lies between `<!-- generated: NAME -->` and `<!-- end of NAME -->`; the text around it is written by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cyclopts import App
from prometheus_client.metrics import MetricWrapperBase

from conure import errors, metrics
from conure.cli import reporter
from conure.cli.main import app
from conure.errors import ConureError
from conure.protocols.error_codes import ERROR_CODES
from conure.settings import RENAMED, Settings

__all__ = ["ERROR_MEANINGS", "PAGES", "option_names", "render_page"]

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "reference" / f"{name}.md" for name in ("cli", "settings", "metrics", "errors")]
BLOCK = re.compile(r"<!-- generated: (?P<name>.+?) -->\n.*?<!-- end of (?P=name) -->", re.DOTALL)

ERROR_MEANINGS = {
    "bad_message": "A message does not follow the protocol.",
    "bad_http": "The bytes are not HTTP, or not valid HTTP.",
    "unknown_path": "No endpoint has this path.",
    "wrong_method": "The endpoint does not accept this method; `Allow` lists those it does.",
    "request_timeout": "The head or the body of a request took too long.",
    "address_too_long": "The address has more than 68 KiB.",
    "upgrade_required": "The endpoint is a WebSocket.",
    "head_too_long": "The head has more than 128 KiB or 500 headers.",
    "http_version": "The version of HTTP is not supported.",
    "lag_exceeded": "The stream fell 15 s behind: the machine is overloaded.",
    "client_too_slow": "The client did not read its events.",
    "idle": "No audio or message arrived for too long.",
    "server_stopped": "The server stopped.",
    "displaced": "Another connection resumed the stream.",
    "internal": "A bug in Conure, or the machine failed.",
}
"""Codes without a class of their own."""
EVERYWHERE = {"--json", "--verbose", "--debug"}
FAMILIES = {"error", "bad_request", "model_error"}
"""Codes of base classes, which are never raised themselves."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    stale = [page for page in PAGES if render_page(page) != page.read_text(encoding="utf-8")]
    for page in stale:
        print(f"{page}: {'out of date' if check else 'updated'}")
        if not check:
            page.write_text(render_page(page), encoding="utf-8")
    return int(check and bool(stale))


def render_page(path: Path) -> str:
    """The page with current tables."""
    return BLOCK.sub(_render_block, path.read_text(encoding="utf-8"))


def _render_block(found: re.Match[str]) -> str:
    name = found["name"]
    kind, _, argument = name.partition(" ")
    table = TABLES[kind](argument) if argument else TABLES[kind]()
    return f"<!-- generated: {name} -->\n{table}\n<!-- end of {name} -->"


def _options(command: str) -> str:
    """Options of a command such as `bench live`, without those that every command has."""
    return _table(("option", "description", "default"), _option_rows(_find_command(command)))


def option_names(command: str) -> set[str]:
    """All spellings of all options of a command."""
    found = _find_command(command)
    arguments = found.assemble_argument_collection(parse_docstring=True) if found.default_command else ()
    return {name for argument in arguments for name in argument.names} | {"--help", "--version"}


def _find_command(names: str) -> App:
    found: App = app
    for name in names.split():
        found = found[name]
    return found


def _option_rows(command: App) -> Iterator[tuple[str, str, str]]:
    for argument in command.assemble_argument_collection(parse_docstring=True):
        names = [name for name in argument.names if name.startswith("--") or re.fullmatch("-[a-z]", name)]
        if names and argument.show and names[0] not in EVERYWHERE:
            spelled = ", ".join(f"`{name}`" for name in names)
            yield spelled, _cell(f"{argument.parameter.help or ''}{_choices(argument)}"), _default(argument)


def _choices(argument: Any) -> str:
    found = argument.get_choices() or ()
    return f" One of {', '.join(f'`{choice}`' for choice in found)}." if len(found) > 1 else ""


def _default(argument: Any) -> str:
    shown = argument.parameter.show_default
    value = shown if isinstance(shown, str) else argument.field_info.default if shown is None else None
    if value in (None, False, "") or not isinstance(value, str | int | float):
        return ""
    return str(value) if " " in str(value) else f"`{value}`"


def _settings() -> str:
    return _table(("file", "environment", "default", "description"), map(_setting_row, Settings.model_fields.items()))


def _setting_row(item: tuple[str, Any]) -> tuple[str, str, str, str]:
    name, field = item
    default = "" if field.default in (None, "") else f"`{field.default}`"
    default = "`~/.cache/conure`" if name == "cache" else default
    return f"`{name}`", f"`CONURE_{name.upper()}`", default, _cell(str(field.description))


def _old_names() -> str:
    return _table(("old", "new"), ((f"`{old}`", f"`{new}`") for old, new in RENAMED.items()))


def _metrics() -> str:
    found = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    return _table(("metric", "type", "labels", "description"), sorted(map(_metric_row, found)))


def _metric_row(metric: MetricWrapperBase) -> tuple[str, str, str, str]:
    family = next(iter(metric.describe()))
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"`{name}`", family.type, labels, _cell(family.documentation)


def _errors() -> str:
    header = ("code", "meaning", "HTTP", "WebSocket", "gRPC", "OpenAI", "Deepgram", "exit code")
    return _table(header, map(_error_row, _codes()))


def _codes() -> list[str]:
    return [*(code for code in ERROR_CODES if code not in FAMILIES), "internal"]


def _error_row(code: str) -> tuple[str, ...]:
    classes = _error_classes()
    meaning = _cell(_first_sentence(classes[code])) if code in classes else ERROR_MEANINGS[code]
    wire = ERROR_CODES.get(code, ERROR_CODES["error"])
    openai = f"{wire.openai_http or wire.http} `{wire.openai}`"
    ours = code in classes and issubclass(classes[code], reporter.FAILURES)
    exit_code = "1" if ours or code == "internal" else "2" if code in classes else ""
    names = f"`{wire.grpc}`", openai, f"`{wire.deepgram}`", exit_code
    return f"`{code}`", meaning, str(wire.http), str(wire.close), *names


def _error_classes() -> dict[str, type[ConureError]]:
    found = (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ConureError))
    return {error.code: error for error in found}


def _first_sentence(error: type[ConureError]) -> str:
    return str(error.__doc__).split("\n\n", maxsplit=1)[0].replace("\n", " ")


def _table(header: tuple[str, ...], rows: Any) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("|  |", "| |").replace("|  |", "| |")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


TABLES: dict[str, Callable[..., str]] = {
    "options": _options,
    "settings": _settings,
    "old-names": _old_names,
    "metrics": _metrics,
    "errors": _errors,
}

if __name__ == "__main__":
    sys.exit(main())
