"""Flags that are settings."""

from __future__ import annotations

from cyclopts import Parameter

from conure.settings import Settings

__all__ = ["knob"]


def knob(name: str) -> Parameter:
    """The flag of a setting: its sentence and its default are those of the setting."""
    field = Settings.model_fields[name]
    return Parameter(help=field.description, show_default=field.default is not None and f"{field.default}")
