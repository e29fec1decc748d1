"""`conure keys`: adds, lists and removes the API keys of a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter, validators

from conure.cli.outputs import write_atomically, write_stdout
from conure.cli.reporter import DEFAULT_COMMON, DONE, Common
from conure.cli.setting_flags import setting_flag
from conure.cli.tables import table
from conure.errors import BadOption
from conure.settings import load_settings

if TYPE_CHECKING:
    from conure.service.keys import Key

__all__ = ["add", "app", "list_keys", "remove"]

EXAMPLES = """\
Examples:
  conure keys add phone --keys keys.json --streams 4
  conure keys list --keys keys.json
"""
ADD_EXAMPLES = """\
Examples:
  conure keys add phone --keys keys.json --scope live --streams 4
  conure keys add notes --keys keys.json --scope files --audio-minutes-per-day 600
"""
LIST_EXAMPLES = """\
Examples:
  conure keys list --keys keys.json
  conure keys list --json
"""
REMOVE_EXAMPLES = """\
Examples:
  conure keys remove phone --keys keys.json
  conure keys remove 5f0c2a9d81be
"""
OWNER_ONLY = 0o600

KeysFile = Annotated[Path | None, setting_flag("keys")]
Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


@Parameter(name="*")
@dataclass(frozen=True)
class Permissions:
    scope: Annotated[tuple[str, ...], Parameter(show_default="all", negative="", consume_multiple=True)] = ()
    """Scopes of the key: one or more of live, files, status."""

    requests_per_minute: Count = None
    """Limit of opened streams and sent recordings per minute."""

    streams: Count = None
    """Limit of concurrent live streams."""

    audio_minutes_per_day: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None
    """Limit of minutes of audio in 24 hours."""


ALL_PERMISSIONS = Permissions()

app = App(
    name="keys",
    help="Add, list and remove the API keys of a server.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.command(help_epilogue=ADD_EXAMPLES)
def add(
    name: str, /, *, allowed: Permissions = ALL_PERMISSIONS, keys: KeysFile = None, common: Common = DEFAULT_COMMON
) -> int:
    """Create a key and print its secret, which is not shown again. A running server accepts it within seconds.

    Parameters
    ----------
    name
        Name of the key, for lists and logs.
    """
    common.begin()
    from conure.service.keys import new_key  # noqa: PLC0415  keeps slow imports out of --help
    from conure.service.limits import Limits  # noqa: PLC0415

    if not name.strip() or not name.isprintable() or len(name) > 100:
        raise BadOption(f"invalid key name {name!r}", "use 1 to 100 printable characters")
    limits = Limits(
        requests_per_minute=allowed.requests_per_minute,
        streams=allowed.streams,
        audio_minutes_per_day=allowed.audio_minutes_per_day,
    )
    with _edit_keys(keys, may_create=True) as known:
        if any(name in (key.name, key.id) for key in known):
            raise BadOption(f"key {name!r} already exists", f"`conure keys remove {name}`, or use another name")
        key, secret = new_key(name, datetime.now(UTC).replace(microsecond=0), _scopes(allowed.scope), limits)
        known.append(key)
    write_stdout(secret + "\n")
    return DONE


@app.command(name="list", help_epilogue=LIST_EXAMPLES)
def list_keys(*, keys: KeysFile = None, common: Common = DEFAULT_COMMON) -> int:
    """List the keys with their scopes and limits. Secrets are not stored."""
    common.begin()
    from conure.service.keys import read_keys  # noqa: PLC0415  keeps slow imports out of --help

    found = read_keys(_keys_path(keys))
    write_stdout(_as_json(found) if common.json else _as_table(found))
    return DONE


@app.command(help_epilogue=REMOVE_EXAMPLES)
def remove(name: str, /, *, keys: KeysFile = None, common: Common = DEFAULT_COMMON) -> int:
    """Remove a key. A running server rejects it within seconds; open streams continue.

    Parameters
    ----------
    name
        Name or id of the key.
    """
    common.begin()
    with _edit_keys(keys) as known:
        remaining = [key for key in known if name not in (key.name, key.id)]
        if len(remaining) == len(known):
            raise BadOption(f"no key {name!r}", f"existing keys: {', '.join(key.name for key in known) or 'none'}")
        known[:] = remaining
    return DONE


@contextmanager
def _edit_keys(file: Path | None, *, may_create: bool = False) -> Iterator[list[Key]]:
    """The keys of the file, under a lock; they are written when the block ends."""
    from filelock import FileLock  # noqa: PLC0415  keeps slow imports out of --help

    from conure.service.keys import encode_keys, read_keys  # noqa: PLC0415

    path = _keys_path(file)
    try:
        if may_create:
            path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), mode=OWNER_ONLY):
            known = [] if may_create and not path.exists() else read_keys(path)
            yield known
            write_atomically(path, encode_keys(known), OWNER_ONLY)
    except OSError as error:
        raise BadOption(f"{path} cannot be written: {error.strerror}", "use a writable file") from error


def _keys_path(file: Path | None) -> Path:
    path = load_settings(keys=file).keys
    if path is None:
        raise BadOption("no keys file given", "use --keys FILE, CONURE_KEYS, or `keys` in the settings file")
    return path


def _scopes(names: tuple[str, ...]) -> Any:
    from conure.service.keys import SCOPES  # noqa: PLC0415  keeps slow imports out of --help

    if unknown := [scope for scope in names if scope not in SCOPES]:
        raise BadOption(f"--scope is {unknown[0]!r}", f"it must be one or more of: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in names) or SCOPES


def _as_table(keys: list[Key]) -> str:
    header = ("NAME", "ID", "FOR", "REQUESTS/MIN", "STREAMS", "AUDIO MIN/DAY", "CREATED")
    return table([header, *(_row(key) for key in keys)])


def _row(key: Key) -> tuple[str, ...]:
    limits = key.limits
    values = (limits.requests_per_minute, limits.streams, limits.audio_minutes_per_day)
    cells = ("-" if value is None else f"{value:g}" for value in values)
    return key.name, key.id, " ".join(key.scopes), *cells, f"{key.created:%Y-%m-%d}"


def _as_json(keys: list[Key]) -> str:
    import msgspec  # noqa: PLC0415  keeps slow imports out of --help

    facts = [msgspec.to_builtins(key) for key in keys]
    shown = [{name: value for name, value in key.items() if name != "hash"} for key in facts]
    return json.dumps(shown, ensure_ascii=False, indent=2) + "\n"
