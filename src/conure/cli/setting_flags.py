"""Flags that are settings, and old names of such flags."""

from __future__ import annotations

from cyclopts import Parameter

from conure.settings import Settings, load_settings

__all__ = ["HIDDEN", "knob", "server_key"]

HIDDEN = Parameter(show=False)
"""An old name of a flag: it still works, and `with_current_names` warns of it; help pages leave it out."""


def knob(name: str) -> Parameter:
    """The flag of a setting: its sentence and its default are those of the setting."""
    field = Settings.model_fields[name]
    return Parameter(help=field.description, show_default=field.default is not None and f"{field.default}")


def server_key(given: str | None) -> str | None:
    """The key to send to a server: the flag's, else that of the settings."""
    key = load_settings(key=given).key
    return key.get_secret_value() if key else None
