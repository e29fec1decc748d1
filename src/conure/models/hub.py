"""Weights from the Hugging Face hub: from its local cache or, if necessary, downloaded.

Only the files of a checkpoint are downloaded: the .nemo archive, otherwise safetensors and their JSON files; never a
pickle. huggingface_hub manages the cache and reads HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN. It discards an interrupted
download, so large files are downloaded here, with resume, and put into its cache.
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
# The base class of HTTP errors depends on the HTTP library that the installed huggingface_hub uses.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MIN_LARGE_BYTES = 8 * 2**20
"""Size from which on a download is resumable."""
_JSON = ("config.json", "preprocessor_config.json", "processor_config.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_INDEX = "model.safetensors.index.json"


def is_cached(repository: HubRepository) -> bool:
    """Whether the cache contains the whole checkpoint."""
    return cached_path(repository) is not None


def cached_path(repository: HubRepository) -> Path | None:
    """The checkpoint in the cache: a .nemo file or a folder. None if it is missing or incomplete."""
    try:
        folder = snapshot_download(
            repository.repository, revision=repository.revision, cache_dir=repository.cache, local_files_only=True
        )
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    return _complete_checkpoint(Path(folder), repository)


def _complete_checkpoint(folder: Path, repository: HubRepository) -> Path | None:
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    files = _choose(repository, names)
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


def _choose(repository: HubRepository, files: Iterable[str]) -> list[str]:
    """The files of the checkpoint in a repository: the .nemo file, which has all heads, otherwise safetensors."""
    top = [file for file in files if "/" not in file]
    archives = _archives(top)
    if repository.file:
        return [repository.file] if repository.file in archives else []
    if f"{repository.name}.nemo" in archives:
        return [f"{repository.name}.nemo"]
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


def _no_checkpoint(repository: HubRepository, files: Iterable[str]) -> ModelNotFound:
    """The error if a repository has no checkpoint, or several."""
    archives = _archives(files)
    if repository.file:
        return ModelNotFound(
            f"{repository.repository} has no {repository.file}", f"it has: {first_few(archives) or 'none'}"
        )
    if archives:
        example = replace(repository, file=archives[0]).label
        return ModelNotFound(
            f"{repository.label} has several checkpoints: {first_few(archives)}", f"name one of them: {example}"
        )
    return ModelNotFound(f"{repository.label} has neither one .nemo file nor safetensors that Conure reads")


def fetch(repository: HubRepository, progress: Progress | None = None) -> Path:
    """The checkpoint on disk; it is downloaded if it is not in the cache."""
    if found := cached_path(repository):
        return found
    if repository.offline or constants.HF_HUB_OFFLINE:
        raise ModelNotFound(
            f"{repository.label} is not on disk and downloads are switched off", _manual_download_hint(repository)
        )
    try:
        _download(repository, progress)
    except (_HTTP_ERROR, OSError, RuntimeError, HFValidationError) as error:
        if isinstance(error, ConureError):
            raise
        raise _explain(repository, error) from error
    found = cached_path(repository)
    if found is None:
        raise ModelNotFound(f"{repository.label} was downloaded and is incomplete", "try again")
    return found


def _download(repository: HubRepository, progress: Progress | None) -> None:
    info = HfApi().model_info(repository.repository, revision=repository.revision, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    files = _choose(repository, sizes)
    if not files:
        raise _no_checkpoint(repository, sizes)
    known = [size for file in files if (size := sizes[file]) is not None]
    total = sum(known) if len(known) == len(files) else None
    try:
        _download_files(repository, {file: sizes[file] for file in files}, total, progress)
    except OSError as error:
        if not is_disk_full(error):
            raise
        reason = no_space_message(_cache(repository), total)
        raise ModelNotFound(
            f"{repository.label} cannot be downloaded: {reason}", "HF_HOME names another folder"
        ) from error


def _cache(repository: HubRepository) -> Path:
    return repository.cache or Path(constants.HF_HUB_CACHE)


def _download_files(
    repository: HubRepository, sizes: Mapping[str, int | None], total: int | None, progress: Progress | None
) -> None:
    done = 0
    for file in sizes:
        bar = _bar(progress, done, total)
        if (sizes[file] or 0) >= MIN_LARGE_BYTES:
            _download_large(repository, file, bar)
        hf_hub_download(
            repository.repository, file, revision=repository.revision, cache_dir=repository.cache, tqdm_class=bar
        )
        done += sizes[file] or 0
        if progress is not None:
            progress(done, total)


def _download_large(repository: HubRepository, file: str, bar: Any) -> None:
    """Downloads a file to the place where huggingface_hub caches it; an interrupted download is resumed."""
    url = hf_hub_url(repository.repository, file, revision=repository.revision)
    metadata = get_hf_file_metadata(url)
    if metadata.size is None or not _DIGEST.fullmatch(metadata.etag or ""):
        return
    cache, folder = _cache(repository), "models--" + repository.repository.replace("/", "--")
    blob = cache / folder / "blobs" / str(metadata.etag)
    lock = cache / ".locks" / folder / f"{metadata.etag}.conure.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        partial = blob.with_name(blob.name + ".conure.partial")
        if partial.exists() and partial.stat().st_size > metadata.size:
            partial.unlink()
        with partial.open("ab") as target:
            headers = build_hf_headers()
            http_get(
                url, target, resume_size=target.tell(), headers=headers, expected_size=metadata.size, tqdm_class=bar
            )
        _check_digest(partial, blob.name)
        partial.replace(blob)


def _check_digest(path: Path, digest: str) -> None:
    """Compares a file with its SHA-256, by which the hub names large files."""
    if len(digest) != 64:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        path.unlink()
        raise ModelNotFound("the download was damaged and has been deleted", "try again")


def _bar(progress: Progress | None, before: int, total: int | None) -> Any:
    """A class that huggingface_hub uses as the progress bar of one file; it calls `progress` and prints nothing."""

    class Bar:
        def __init__(self, *_: Any, initial: int = 0, **settings: Any) -> None:
            self.n = initial
            self.total = settings.get("total")

        def update(self, count: float | None = 1) -> None:
            self.n += int(count or 0)
            if progress is not None:
                progress(before + self.n, total)

        def ignore(self, *_: Any, **__: Any) -> None:
            """Calls about transfer rates and drawing have no effect."""

        update_transfer = set_postfix_str = set_transfer_postfix_str = refresh = close = ignore

        def __enter__(self) -> Bar:
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            self.close()

    return Bar


def _manual_download_hint(repository: HubRepository) -> str:
    return (
        f"run `conure models pull {repository.label}` with network access; or download the .nemo file of "
        f"{constants.ENDPOINT}/{repository.repository} elsewhere, copy it here and use its path as the model; "
        f"{TINY_HINT}"
    )


def _explain(repository: HubRepository, error: Exception) -> ConureError:
    if isinstance(error, GatedRepoError):
        return ModelNotFound(
            f"{repository.label} asks for its terms to be accepted", "accept them there and set HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return UnknownModel(f"the hub has no model {repository.repository}", "a private one needs HF_TOKEN")
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFound(f"{repository.repository} has no revision {repository.revision!r}")
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return ModelNotFound(
        f"{repository.label} is not on disk and cannot be downloaded: {reason}", _manual_download_hint(repository)
    )
