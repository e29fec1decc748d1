"""Checks of the settings, the disks, the hub and the models: what Conure itself can tell once it is installed."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from huggingface_hub import constants

from conure.cli.downloads import wanted
from conure.cli.machine_checks import Check, cpu_flags
from conure.cli.models import models_on_disk
from conure.errors import ConureError
from conure.models import catalog, hub
from conure.native import library
from conure.settings import Settings, config_file, load_settings

__all__ = ["check_setup"]

LEAST_DISK_GB = 6.0
PATIENCE = 3.0
"""Seconds to wait for the hub."""


def check_setup() -> list[Check]:
    """Settings first: where they are wrong there is nothing else to look at."""
    path = config_file()
    try:
        settings = load_settings()
    except ConureError as error:
        found = f"{error.message}; {error.hint}" if error.hint else error.message
        return [Check("settings", found, False, f"edit {path}")]
    place = str(path) if path.exists() else "defaults"
    found = f"{place}: model {settings.model}, device {settings.device}, runner {settings.runner}"
    disks = [
        _disk("cache", settings.cache, "CONURE_CACHE"),
        _disk("hub cache", Path(constants.HF_HUB_CACHE), "HF_HOME"),
    ]
    return [Check("settings", found), _kernels(), *disks, *_models(settings)]


def _kernels() -> Check:
    """Without them all runs, int8 streams at half the speed."""
    if library.has_native_kernels():
        return Check("kernels", "native")
    if "avx512_vnni" not in cpu_flags():
        return Check("kernels", "ONNX Runtime's: the native ones want a processor with AVX-512 VNNI")
    fix = "apt-get install g++ && pip install --force-reinstall --no-deps --no-binary conure conure"
    return Check("kernels", "ONNX Runtime's: the native ones were built without a compiler", fix=fix)


def _disk(name: str, folder: Path, variable: str) -> Check:
    there = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    if not os.access(there, os.W_OK):
        fix = f"export {variable}=/a/folder/you/may/write"
        return Check(name, f"{folder} may not be written", False, fix)
    free = shutil.disk_usage(there).free / 2**30
    small = f"; a large model takes up to {LEAST_DISK_GB:.0f} GB" if free < LEAST_DISK_GB else ""
    return Check(name, f"{folder}: {free:.1f} GB free{small}")


def _models(settings: Settings) -> list[Check]:
    """The hub is asked only where the model has to come from there: whoever has it may want no connection at all."""
    repository = wanted(settings.model)
    if repository is None or hub.is_cached(repository):
        problem, found = None, f"is not needed for {settings.model}, and was not asked"
    else:
        problem = _hub_problem()
        found = problem or "answers"
    reach = Check("hub", f"{constants.ENDPOINT} {found}")
    here = Check("models on disk", ", ".join(models_on_disk()) or "none")
    return [reach, here, _model(settings.model, problem)]


def _hub_problem() -> str | None:
    """Why the hub is of no use; None when it answers."""
    if constants.HF_HUB_OFFLINE:
        return "is switched off by HF_HUB_OFFLINE"
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return None
    except urllib.error.HTTPError:
        return None  # it refuses, but it is there
    except (OSError, ValueError) as error:
        return f"cannot be reached: {getattr(error, 'reason', error)}"


def _model(name: str, hub_problem: str | None) -> Check:
    """The model that is used when none is named."""
    repository = wanted(name)
    if repository is None:
        known = catalog.find(name) is not None or Path(name).expanduser().exists()
        return Check("model", f"{name}{'' if known else ' is unknown'}", known, None if known else "conure models")
    if hub.is_cached(repository):
        return Check("model", f"{name} is on disk")
    pull = f"conure models pull {name}"
    if hub_problem:
        return Check("model", f"{name} is not on disk, and the hub {hub_problem}", False, pull)
    return Check("model", f"{name} will be downloaded when it is first used", fix=pull)
