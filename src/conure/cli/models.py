"""`conure models`: lists the catalog; downloads, describes and converts models."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from conure.cli.downloads import ensure_on_disk, find_repository
from conure.cli.outputs import write_stdout
from conure.cli.progress import spinner
from conure.cli.reporter import DEFAULT_COMMON, Common
from conure.cli.tables import table
from conure.errors import BadOption, ConureError
from conure.models import catalog, hub
from conure.models.catalog import CatalogModel
from conure.models.disk_space import is_disk_full, no_space_message
from conure.models.hub_repository import HubRepository
from conure.settings import load_settings

__all__ = ["app", "convert", "info", "list_models", "models_on_disk", "pull"]

EXAMPLES = """\
Examples:
  conure models
  conure models pull parakeet-tdt-0.6b-v3
"""
PULL_EXAMPLES = """\
Examples:
  conure models pull parakeet-tdt-0.6b-v3
  conure models pull nvidia/parakeet-tdt-0.6b-v2@main nemotron
"""
INFO_EXAMPLES = """\
Examples:
  conure models info tiny
  conure models info ./finetuned.nemo --json
"""
CONVERT_EXAMPLES = """\
Examples:
  conure models convert ./finetuned.nemo -o finetuned/ --onnx int8
  conure models convert nvidia/parakeet-ctc-0.6b --dtype bfloat16
"""

app = App(
    name="models",
    help="List, download, describe and convert models.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@app.default
def list_models(*, common: Common = DEFAULT_COMMON) -> int:
    """List the models of the catalog, and whether they are on disk."""
    common.begin()
    facts = [_facts(model) for model in catalog.MODELS]
    write_stdout(_as_json(facts) if common.json else _as_table(facts))
    return 0


@app.command(help_epilogue=PULL_EXAMPLES)
def pull(*names: str, common: Common = DEFAULT_COMMON) -> int:
    """Download models from the Hugging Face hub into its cache; print the path of each.

    Parameters
    ----------
    names
        Names from the catalog, or hub ids such as nvidia/parakeet-ctc-0.6b; @REVISION pins a revision.
    """
    report = common.begin()
    if not names:
        raise BadOption("no model given", hint="`conure models` lists them")
    for name in names:
        try:
            write_stdout(f"{_pull(name)}\n")
        except ConureError as error:
            report.report_error(error, name)
    return report.exit_code


@app.command(help_epilogue=INFO_EXAMPLES)
def info(name: str | None = None, /, *, common: Common = DEFAULT_COMMON) -> int:
    """Describe a model: its entry in the catalog, and the properties of its weights if they are on disk.

    Parameters
    ----------
    name
        A name from the catalog, a hub id, a .nemo file or a folder; by default the model of the settings.
    """
    common.begin()
    facts = _describe(name or load_settings().model)
    write_stdout(_as_json(facts) if common.json else table((key, _format_value(value)) for key, value in facts.items()))
    return 0


@app.command(help_epilogue=CONVERT_EXAMPLES)
def convert(
    source: str,
    /,
    *,
    output: Annotated[str | None, Parameter(name=["--output", "-o"], show_default="./NAME")] = None,
    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep",
    onnx: Literal["no", "int8", "fp32"] = "no",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Convert a model to Conure's folder format: safetensors, config.json and tokenizer; print the folder.

    Parameters
    ----------
    source
        A .nemo file, a Hugging Face folder, or the name of a model.
    output
        Folder to write; an existing folder is replaced only if it is a Conure model.
    dtype
        Data type of the stored weights.
    onnx
        Also make the converted model for the CPU now, in the cache, instead of on first use.
    """
    common.begin()
    ensure_on_disk(source)
    with spinner(f"converting {source}"):
        folder = _convert(source, output, dtype)
        if onnx != "no":
            _make_onnx(folder, f"onnx-{onnx}")
    write_stdout(f"{folder}\n")
    return 0


def models_on_disk() -> list[str]:
    """Names of the catalog's models that can be used without a network."""
    return [model.name for model in catalog.MODELS if _is_on_disk(model)]


def _pull(name: str) -> str:
    if find_repository(name) is None:
        if (entry := catalog.find(name)) is not None:
            return f"{entry.name} is shipped with Conure"
        raise catalog.unknown_model(name)
    return str(ensure_on_disk(name))


def _convert(source: str, output: str | None, dtype: str) -> Path:
    import torch  # noqa: PLC0415  takes seconds to import, and only this command needs it
    from safetensors import SafetensorError  # noqa: PLC0415

    from conure.models import conure_file, loader  # noqa: PLC0415

    checkpoint = loader.load_checkpoint(source)
    folder = Path(output or checkpoint.name.replace("/", "--"))
    if not (_is_new(folder) or conure_file.is_conure_folder(folder)):
        raise BadOption(f"{folder} exists and is not a Conure model", hint="use another folder with -o")
    try:
        conure_file.save(checkpoint, folder, None if dtype == "keep" else getattr(torch, dtype))
    except (OSError, SafetensorError) as error:
        reason = no_space_message(folder, int(checkpoint.megabytes * 1e6)) if is_disk_full(error) else f"{error}"
        raise BadOption(f"{folder} cannot be written: {reason}") from error
    return folder


def _make_onnx(folder: Path, runner: str) -> None:
    """Opening a runner converts the model if it is not in the cache."""
    from conure.engine.backends.registry import open_clip_runner  # noqa: PLC0415  it loads torch

    settings = load_settings(runner=runner, device="cpu")
    open_clip_runner(
        folder, device=settings.device, runner=settings.runner, cache=settings.cache, threads=settings.threads
    )


def _is_new(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _describe(name: str) -> dict[str, Any]:
    entry = catalog.find(name.partition("@")[0])
    repository = find_repository(name)
    facts = {} if entry is None else _facts(entry)
    if repository is not None and hub.cached_path(repository) is None:
        return facts or {"name": name, "on disk": False}
    if entry is not None and not facts["on disk"]:
        return facts
    from conure.models import loader  # noqa: PLC0415  it loads torch

    return facts | loader.describe(loader.load_checkpoint(name))


def _facts(model: CatalogModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "family": model.family,
        "languages": list(model.languages),
        "kind": "live and clips" if model.is_live else "clips",
        "megabytes": model.megabytes,
        "on disk": _is_on_disk(model),
        "repository": model.repository or None,
        "abilities": list(model.abilities),
        "aliases": list(model.aliases),
    }


def _is_on_disk(model: CatalogModel) -> bool:
    if model.repository:
        return hub.is_cached(HubRepository(model.repository))
    return (resources.files("conure") / "data" / model.name / "config.json").is_file()


def _as_table(facts: list[dict[str, Any]]) -> str:
    header = ("NAME", "FAMILY", "LANGUAGES", "FOR", "SIZE", "ON DISK")
    return table([header, *(_row(model) for model in facts)])


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    languages, megabytes = facts["languages"], facts["megabytes"]
    language = languages[0] if len(languages) == 1 else f"{len(languages)} languages"
    size = f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"
    on_disk = "yes" if facts["on disk"] else "no"
    return facts["name"], facts["family"], language, facts["kind"], size, on_disk


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
