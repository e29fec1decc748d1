"""`conure keys`: add, list and remove the API keys of a server."""

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
from conure.cli.reporter import DONE, PLAIN, Common
from conure.cli.setting_flags import knob
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
OWNER_ALONE = 0o600

File = Annotated[Path | None, knob("keys")]
Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


@Parameter(name="*")
@dataclass(frozen=True)
class Allowed:
    scope: Annotated[tuple[str, ...], Parameter(show_default="all", negative="", consume_multiple=True)] = ()
    """What it is for: live, files, status; several may be named."""

    requests_per_minute: Count = None
    """Streams that it may open and recordings that it may send in a minute."""

    streams: Count = None
    """Live streams that it may have at once."""

    audio_minutes_per_day: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None
    """Minutes of audio that it may send in 24 hours."""


ALL = Allowed()

app = App(
    name="keys",
    help="The API keys of a server: add, list, remove them.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.command(help_epilogue=ADD_EXAMPLES)
def add(name: str, /, *, allowed: Allowed = ALL, keys: File = None, common: Common = PLAIN) -> int:
    """Make a key and print its secret, which is shown this once. A server that runs knows it within seconds.

    Parameters
    ----------
    name
        Whose it is, or what for; it is in lists and logs.
    """
    common.begin()
    from conure.service.keys import new_key  # noqa: PLC0415  --help shall not wait for it
    from conure.service.limits import Limits  # noqa: PLC0415

    if not name.strip() or not name.isprintable() or len(name) > 100:
        raise BadOption(f"{name!r} is no name of a key", "take 1 to 100 letters")
    limits = Limits(
        requests_per_minute=allowed.requests_per_minute,
        streams=allowed.streams,
        audio_minutes_per_day=allowed.audio_minutes_per_day,
    )
    with _changing(keys, may_begin=True) as known:
        if any(name in (key.name, key.id) for key in known):
            raise BadOption(f"there is a key {name!r} already", f"`conure keys remove {name}`, or take another name")
        key, secret = new_key(name, datetime.now(UTC).replace(microsecond=0), _scopes(allowed.scope), limits)
        known.append(key)
    write_stdout(secret + "\n")
    return DONE


@app.command(name="list", help_epilogue=LIST_EXAMPLES)
def list_keys(*, keys: File = None, common: Common = PLAIN) -> int:
    """List the keys: whose they are, what for, and how much they may have. Secrets are not kept."""
    common.begin()
    from conure.service.keys import read_keys  # noqa: PLC0415  --help shall not wait for it

    found = read_keys(_path(keys))
    write_stdout(_as_json(found) if common.json else _as_table(found))
    return DONE


@app.command(help_epilogue=REMOVE_EXAMPLES)
def remove(name: str, /, *, keys: File = None, common: Common = PLAIN) -> int:
    """Remove a key: it opens nothing new, within seconds. Streams that are open go on.

    Parameters
    ----------
    name
        Of the key, or its id.
    """
    common.begin()
    with _changing(keys) as known:
        left = [key for key in known if name not in (key.name, key.id)]
        if len(left) == len(known):
            raise BadOption(f"there is no key {name!r}", f"there are: {', '.join(key.name for key in known) or 'none'}")
        known[:] = left
    return DONE


@contextmanager
def _changing(given: Path | None, *, may_begin: bool = False) -> Iterator[list[Key]]:
    """The keys of the file, written when the block has changed them; nobody else changes them meanwhile."""
    from filelock import FileLock  # noqa: PLC0415  --help shall not wait for these

    from conure.service.keys import encode_keys, read_keys  # noqa: PLC0415

    path = _path(given)
    try:
        if may_begin:
            path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), mode=OWNER_ALONE):
            known = [] if may_begin and not path.exists() else read_keys(path)
            yield known
            write_atomically(path, encode_keys(known), OWNER_ALONE)
    except OSError as error:
        raise BadOption(f"{path} cannot be written: {error.strerror}", "name a file that you may write") from error


def _path(given: Path | None) -> Path:
    path = load_settings(keys=given).keys
    if path is None:
        raise BadOption("no file of keys was named", "name one: --keys FILE, CONURE_KEYS, or `keys` in the settings")
    return path


def _scopes(asked: tuple[str, ...]) -> Any:
    from conure.service.keys import SCOPES  # noqa: PLC0415  --help shall not wait for it

    if unknown := [scope for scope in asked if scope not in SCOPES]:
        raise BadOption(f"--scope is {unknown[0]!r}", f"it must be one or more of: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in asked) or SCOPES


def _as_table(keys: list[Key]) -> str:
    head = ("NAME", "ID", "FOR", "REQUESTS/MIN", "STREAMS", "AUDIO MIN/DAY", "CREATED")
    return table([head, *(_row(key) for key in keys)])


def _row(key: Key) -> tuple[str, ...]:
    limits = key.limits
    most = (limits.requests_per_minute, limits.streams, limits.audio_minutes_per_day)
    told = ("-" if limit is None else f"{limit:g}" for limit in most)
    return key.name, key.id, " ".join(key.scopes), *told, f"{key.created:%Y-%m-%d}"


def _as_json(keys: list[Key]) -> str:
    import msgspec  # noqa: PLC0415  --help shall not wait for it

    facts = [msgspec.to_builtins(key) for key in keys]
    shown = [{name: value for name, value in key.items() if name != "hash"} for key in facts]
    return json.dumps(shown, ensure_ascii=False, indent=2) + "\n"
