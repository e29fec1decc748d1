"""Command-line flags that set a setting, and deprecated names of such flags."""

from __future__ import annotations

from cyclopts import Parameter

from conure.settings import Settings, load_settings

__all__ = ["HIDDEN", "setting_flag", "server_key"]

HIDDEN = Parameter(show=False)
"""Deprecated name of a flag: works with a warning of `with_current_names`, and is left out of --help."""


def setting_flag(name: str) -> Parameter:
    """The flag of a setting, with the setting's description and default."""
    field = Settings.model_fields[name]
    return Parameter(help=field.description, show_default=field.default is not None and f"{field.default}")


def server_key(flag: str | None) -> str | None:
    """The API key for a server: the flag's value, else the setting's."""
    key = load_settings(key=flag).key
    return key.get_secret_value() if key else None
