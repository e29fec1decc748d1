"""Checks of settings, disks, hub and models. They import the packages that `machine_checks` tests."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from huggingface_hub import constants

from conure.cli.downloads import find_repository
from conure.cli.machine_checks import Check, cpu_flags
from conure.cli.models import models_on_disk
from conure.errors import ConureError
from conure.models import catalog, hub
from conure.native import library
from conure.settings import Settings, config_file, load_settings

__all__ = ["check_setup"]

MIN_DISK_GB = 6.0
HUB_TIMEOUT = 3.0
"""Seconds."""


def check_setup() -> list[Check]:
    """All checks; invalid settings are the only result, as the others depend on them."""
    path = config_file()
    try:
        settings = load_settings()
    except ConureError as error:
        found = f"{error.message}; {error.hint}" if error.hint else error.message
        return [Check("settings", found, False, f"edit {path}")]
    source = str(path) if path.exists() else "defaults"
    found = f"{source}: model {settings.model}, device {settings.device}, runner {settings.runner}"
    disks = [
        _disk("cache", settings.cache, "CONURE_CACHE"),
        _disk("hub cache", Path(constants.HF_HUB_CACHE), "HF_HOME"),
    ]
    return [Check("settings", found), _kernels(), *disks, *_models(settings)]


def _kernels() -> Check:
    """Without native kernels, int8 streams run at half the speed."""
    if library.has_native_kernels():
        return Check("kernels", "native")
    if "avx512_vnni" not in cpu_flags():
        return Check("kernels", "ONNX Runtime; native kernels need a processor with AVX-512 VNNI")
    fix = "apt-get install g++ && pip install --force-reinstall --no-deps --no-binary conure conure"
    return Check("kernels", "ONNX Runtime; native kernels were not compiled", fix=fix)


def _disk(name: str, folder: Path, variable: str) -> Check:
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        fix = f"export {variable}=/a/writable/folder"
        return Check(name, f"{folder} is not writable", False, fix)
    free = shutil.disk_usage(existing).free / 2**30
    warning = f"; a large model takes up to {MIN_DISK_GB:.0f} GB" if free < MIN_DISK_GB else ""
    return Check(name, f"{folder}: {free:.1f} GB free{warning}")


def _models(settings: Settings) -> list[Check]:
    """Connects to the hub only if the model has to be downloaded."""
    repository = find_repository(settings.model)
    if repository is None or hub.is_cached(repository):
        problem, found = None, f"is not needed for {settings.model}; not checked"
    else:
        problem = _hub_problem()
        found = problem or "is reachable"
    reachable = Check("hub", f"{constants.ENDPOINT} {found}")
    on_disk = Check("models on disk", ", ".join(models_on_disk()) or "none")
    return [reachable, on_disk, _model(settings.model, problem)]


def _hub_problem() -> str | None:
    """Why the hub cannot be used; None if it is reachable."""
    if constants.HF_HUB_OFFLINE:
        return "is disabled by HF_HUB_OFFLINE"
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT):
            return None
    except urllib.error.HTTPError:
        return None  # reachable, even if it answers with an error
    except (OSError, ValueError) as error:
        return f"cannot be reached: {getattr(error, 'reason', error)}"


def _model(name: str, hub_problem: str | None) -> Check:
    """The default model."""
    repository = find_repository(name)
    if repository is None:
        known = catalog.find(name) is not None or Path(name).expanduser().exists()
        return Check("model", f"{name}{'' if known else ' is unknown'}", known, None if known else "conure models")
    if hub.is_cached(repository):
        return Check("model", f"{name} is on disk")
    pull = f"conure models pull {name}"
    if hub_problem:
        return Check("model", f"{name} is not on disk, and the hub {hub_problem}", False, pull)
    return Check("model", f"{name} will be downloaded on first use", fix=pull)
