"""Weights from the Hugging Face hub: the cache first, the network last.

Only the files a checkpoint is made of are fetched: the .nemo archive, else safetensors with their JSON; never a
pickle beside them. huggingface_hub keeps the cache and reads HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN. It
throws away what a broken download had already brought, so large files are fetched here and put into its cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

from conure.errors import ConureError, ModelNotFound, UnknownModel
from conure.models.config_values import first_few
from conure.models.disk_space import is_disk_full, no_space_message
from conure.models.hub_repository import HubRepository, Progress

__all__ = ["fetch", "is_cached", "cached_path"]

TINY_HINT = (
    "or try `--model tiny`, a few MB inside Conure: it knows English digits, letters, commands and simple "
    "sentences, for trying things out only"
)
# Errors of whichever httpx the installed huggingface_hub is built on.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
LARGE_BYTES = 8 * 2**20
_JSON = ("config.json", "preprocessor_config.json", "processor_config.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_INDEX = "model.safetensors.index.json"


def is_cached(wanted: HubRepository) -> bool:
    """Whether the whole checkpoint lies in the cache."""
    return cached_path(wanted) is not None


def cached_path(wanted: HubRepository) -> Path | None:
    """The checkpoint in the cache: a .nemo file or a folder. None when it is missing or half there."""
    try:
        folder = snapshot_download(
            wanted.repository, revision=wanted.revision, cache_dir=wanted.cache, local_files_only=True
        )
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    return _whole_checkpoint(Path(folder), wanted)


def _whole_checkpoint(folder: Path, wanted: HubRepository) -> Path | None:
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    files = _choose(wanted, names)
    if not files:
        return None
    if files[0].endswith(".nemo"):
        return folder / files[0]
    shards = _shards(folder) if _INDEX in files else ["model.safetensors"]
    return folder if all((folder / name).is_file() for name in shards) else None


def _shards(folder: Path) -> list[str]:
    try:
        places = json.loads((folder / _INDEX).read_bytes())["weight_map"]
        return sorted({str(name) for name in places.values()})
    except (ValueError, KeyError, AttributeError, TypeError, OSError):
        return []


def _choose(wanted: HubRepository, files: Iterable[str]) -> list[str]:
    """The files of one checkpoint among all of a repository: the .nemo, which has every head, else safetensors."""
    top = [file for file in files if "/" not in file]
    archives = _archives(top)
    if wanted.file:
        return [wanted.file] if wanted.file in archives else []
    if f"{wanted.name}.nemo" in archives:
        return [f"{wanted.name}.nemo"]
    if len(archives) == 1:
        return archives
    if "config.json" not in top or not any(file in top for file in _TOKENIZERS):
        return []
    weights = ["model.safetensors"] if "model.safetensors" in top else []
    if not weights and _INDEX in top:
        weights = [_INDEX] + [file for file in top if re.fullmatch(r"model-\d+-of-\d+\.safetensors", file)]
    return weights and weights + [file for file in top if file in _JSON + _TOKENIZERS]


def _archives(files: Iterable[str]) -> list[str]:
    return sorted(file for file in files if "/" not in file and file.endswith(".nemo"))


def _no_choice(wanted: HubRepository, files: Iterable[str]) -> ModelNotFound:
    """Why none of a repository's files was chosen."""
    archives = _archives(files)
    if wanted.file:
        return ModelNotFound(f"{wanted.repository} has no {wanted.file}", f"it has: {first_few(archives) or 'none'}")
    if archives:
        one = replace(wanted, file=archives[0]).label
        return ModelNotFound(
            f"{wanted.label} has several checkpoints: {first_few(archives)}", f"name one of them: {one}"
        )
    return ModelNotFound(f"{wanted.label} has neither one .nemo file nor safetensors that Conure reads")


def fetch(wanted: HubRepository, progress: Progress | None = None) -> Path:
    """The checkpoint on disk, downloaded when the cache does not have it."""
    if found := cached_path(wanted):
        return found
    if wanted.offline or constants.HF_HUB_OFFLINE:
        raise ModelNotFound(f"{wanted.label} is not on disk and downloads are switched off", _by_hand(wanted))
    try:
        _download(wanted, progress)
    except (_HTTP_ERROR, OSError, RuntimeError, HFValidationError) as error:
        if isinstance(error, ConureError):
            raise
        raise _explain(wanted, error) from error
    found = cached_path(wanted)
    if found is None:
        raise ModelNotFound(f"{wanted.label} was downloaded and is not whole", "try again")
    return found


def _download(wanted: HubRepository, progress: Progress | None) -> None:
    info = HfApi().model_info(wanted.repository, revision=wanted.revision, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    files = _choose(wanted, sizes)
    if not files:
        raise _no_choice(wanted, sizes)
    known = [size for file in files if (size := sizes[file]) is not None]
    total = sum(known) if len(known) == len(files) else None
    try:
        _download_files(wanted, {file: sizes[file] for file in files}, total, progress)
    except OSError as error:
        if not is_disk_full(error):
            raise
        reason = no_space_message(_cache(wanted), total)
        raise ModelNotFound(f"{wanted.label} cannot be downloaded: {reason}", "HF_HOME names another folder") from error


def _cache(wanted: HubRepository) -> Path:
    return wanted.cache or Path(constants.HF_HUB_CACHE)


def _download_files(
    wanted: HubRepository, sizes: Mapping[str, int | None], total: int | None, progress: Progress | None
) -> None:
    done = 0
    for file in sizes:
        bar = _bar(progress, done, total)
        if (sizes[file] or 0) >= LARGE_BYTES:
            _download_large(wanted, file, bar)
        hf_hub_download(wanted.repository, file, revision=wanted.revision, cache_dir=wanted.cache, tqdm_class=bar)
        done += sizes[file] or 0
        if progress is not None:
            progress(done, total)


def _download_large(wanted: HubRepository, file: str, bar: Any) -> None:
    """Puts a file where huggingface_hub looks for it; what came before a break is kept and taken up again."""
    url = hf_hub_url(wanted.repository, file, revision=wanted.revision)
    told = get_hf_file_metadata(url)
    if told.size is None or not _DIGEST.fullmatch(told.etag or ""):
        return
    cache, folder = _cache(wanted), "models--" + wanted.repository.replace("/", "--")
    blob = cache / folder / "blobs" / str(told.etag)
    lock = cache / ".locks" / folder / f"{told.etag}.conure.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        partial = blob.with_name(blob.name + ".conure.partial")
        if partial.exists() and partial.stat().st_size > told.size:
            partial.unlink()
        with partial.open("ab") as target:
            headers = build_hf_headers()
            http_get(url, target, resume_size=target.tell(), headers=headers, expected_size=told.size, tqdm_class=bar)
        _check_digest(partial, blob.name)
        partial.replace(blob)


def _check_digest(path: Path, digest: str) -> None:
    """The hub names large files by their SHA-256."""
    if len(digest) != 64:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        path.unlink()
        raise ModelNotFound("what was downloaded is damaged and was thrown away", "try again")


def _bar(progress: Progress | None, before: int, total: int | None) -> Any:
    """A class that huggingface_hub takes for a progress bar of one file; it prints nothing."""

    class Bar:
        def __init__(self, *_: Any, initial: int = 0, **settings: Any) -> None:
            self.n = initial
            self.total = settings.get("total")

        def update(self, count: float | None = 1) -> None:
            self.n += int(count or 0)
            if progress is not None:
                progress(before + self.n, total)

        def ignore(self, *_: Any, **__: Any) -> None:
            """Bytes on the wire, speeds and drawing: not told on."""

        update_transfer = set_postfix_str = set_transfer_postfix_str = refresh = close = ignore

        def __enter__(self) -> Bar:
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            self.close()

    return Bar


def _by_hand(wanted: HubRepository) -> str:
    return (
        f"run `conure models pull {wanted.label}` where there is a network; or download the .nemo file of "
        f"{constants.ENDPOINT}/{wanted.repository} elsewhere, copy it here and give its path as the model; {TINY_HINT}"
    )


def _explain(wanted: HubRepository, error: Exception) -> ConureError:
    if isinstance(error, GatedRepoError):
        return ModelNotFound(f"{wanted.label} asks for its terms to be accepted", "accept them there and set HF_TOKEN")
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return UnknownModel(f"the hub has no model {wanted.repository}", "a private one needs HF_TOKEN")
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFound(f"{wanted.repository} has no revision {wanted.revision!r}")
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return ModelNotFound(f"{wanted.label} is not on disk and cannot be downloaded: {reason}", _by_hand(wanted))
