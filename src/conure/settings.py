"""Every knob, its default and its sentence. A flag beats the environment, that beats the file, that beats the default.

    flag         --max-hours 2
    environment  CONURE_MAX_HOURS=2
    file         max_hours = 2        in ~/.config/conure/config.toml, or where CONURE_CONFIG points

The only place that reads the environment. It loads pydantic, so import it where settings are needed and not before.
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from conure.errors import BadOption
from conure.types import RunnerChoice

__all__ = ["PROTOCOLS", "Port", "Settings", "config_file", "load_settings"]

PROTOCOLS = ("native", "marker", "openai", "realtime", "deepgram", "riva", "parakeet", "wyoming", "page")
"""What may be closed with `without`."""

Port = Annotated[int, Field(ge=0, le=65535)] | Literal["free"]
"""0 is off; `free` takes one that nobody has."""

PREFIX = "CONURE_"
CONFIG_VARIABLE = "CONURE_CONFIG"


def _default_cache() -> Path:
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "conure"
    if sys.platform == "win32" and (home := os.environ.get("LOCALAPPDATA")):
        return Path(home) / "conure" / "cache"
    return Path("~/.cache/conure").expanduser()


def _expanded(path: Path) -> Path | None:
    """An empty one is none, so that a flag can take back what the file says."""
    return path.expanduser() if path.parts else None


def _origins(pages: str) -> str:
    for page in filter(None, map(str.strip, pages.split(","))):
        parts = urlsplit(page)
        if page not in ("*", "null") and (not parts.netloc or page != f"{parts.scheme}://{parts.netloc}".lower()):
            raise ValueError(f"{page!r} is no web page's origin: write https://example.com, without a path")
    return pages


def _known_doors(names: str) -> str:
    for name in filter(None, map(str.strip, names.split(","))):
        if name not in PROTOCOLS:
            raise ValueError(f"{name!r} is no door; known are: {', '.join(PROTOCOLS)}")
    return names


class Settings(BaseSettings):
    """What was asked for; never changed after it was read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    model: str = Field("parakeet-tdt-0.6b-v3", min_length=1)
    """The model: a catalogue name, a hub id, a .nemo file or a folder."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    """Where networks run: auto, cpu, cuda or cuda:N."""

    runner: RunnerChoice = "auto"
    """What runs them: auto picks the fastest that is there and exact enough."""

    language: str | None = None
    """The language spoken, such as de or de-DE; without it the model detects or assumes one."""

    max_hours: float = Field(12.0, gt=0, allow_inf_nan=False)
    """The longest recording that is accepted, in hours, checked while decoding."""

    cache: Annotated[Path, AfterValidator(Path.expanduser)] = Field(default_factory=_default_cache)
    """The folder for converted models; downloads are in the cache of Hugging Face (HF_HOME)."""

    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads; without it as many as this process has cores."""

    workers: int | None = Field(None, ge=1, le=64)
    """Processes that read recordings where there are several; without it one less than cores, at most 16."""

    processes: int | None = Field(None, ge=1, le=64)
    """Processes that hold connections; without it one for every eight processors, for every two beside a card."""

    segment_seconds: float = Field(30.0, ge=2, le=300)
    """The longest piece, in seconds, that long audio is cut into."""

    batch_seconds: float | None = Field(None, ge=2)
    """The most audio, in seconds, in one batch; less saves memory. Without it 240 on a CPU and 1,920 on a GPU."""

    live: str = Field("nemotron-speech-streaming-en-0.6b", min_length=1)
    """What `conure serve` follows live audio with; several with commas, the first is the default."""

    clips: str | None = None
    """What `conure serve` transcribes recordings with; several with commas, without it the model."""

    host: str = "127.0.0.1"
    """The address that the server listens on; 0.0.0.0 lets other machines in, which takes keys or open_to_all."""

    port: Port = 8000
    """HTTP and WebSocket; 0 is off, and so it is for every port; `free` takes one that nobody has."""

    tcp_port: Port = 8765
    """Lines of JSON over TCP."""

    grpc_port: Port | None = None
    """Riva over gRPC; without it 50051 where conure[grpc] is installed."""

    wyoming_port: Port = 10300
    """Wyoming, which Home Assistant speaks."""

    status_port: Port = 8050
    """Tells in one line of JSON how the server is."""

    without: Annotated[str, AfterValidator(_known_doors)] = ""
    """Closed doors, with commas: native, marker, openai, realtime, deepgram, riva, parakeet, wyoming, page."""

    keys: Annotated[Path, AfterValidator(_expanded)] | None = None
    """The file of API keys, made by `conure keys`; without it whoever reaches the server may use it."""

    open_to_all: bool = False
    """Other machines are let in although there are no keys."""

    tls_certificate: Annotated[Path, AfterValidator(_expanded)] | None = None
    """A file with the certificate chain (PEM): HTTP, WebSocket and gRPC are then encrypted."""

    tls_key: Annotated[Path, AfterValidator(_expanded)] | None = None
    """The file with its private key (PEM)."""

    cors: Annotated[str, AfterValidator(_origins)] = ""
    """Web pages that may use the server from a browser, with commas: https://example.com, or * for all."""

    key: SecretStr | None = None
    """The API key that `conure stream` and `conure bench --url` send to a server."""

    slots: int | None = Field(None, ge=1, le=65536)
    """Streams that each live model has rows for; without it as many as memory allows."""

    device_memory: float | None = Field(None, gt=0, le=1)
    """The part of a GPU's free memory that is taken, from 0 to 1; without it 0.9 is planned with and not enforced."""

    max_connections: int | None = Field(None, ge=2)
    """Connections that each process has at once, whoever has them; without it as many as its descriptors allow."""

    max_unidentified: int | None = Field(None, ge=1)
    """Of these, those that have shown no key, or without keys have said nothing yet; without it half, at most 4,096."""

    start_seconds: float = Field(900.0, gt=0, allow_inf_nan=False)
    """The longest that the engine may take for one step of its start, such as opening a model; then it is killed."""

    resume_seconds: float = Field(30.0, ge=0, le=3600)
    """How long a client whose connection broke may stay away."""

    drain_seconds: float = Field(30.0, ge=0)
    """How long open streams may go on after the server was told to stop."""

    max_upload_mb: float = Field(2048.0, gt=0)
    """The largest recording that is taken over HTTP, in megabytes."""

    max_uploads: int = Field(128, ge=1)
    """Recordings that may be sent, wait and be transcribed at once; each may have max_upload_mb on the disk."""

    max_backlog_mb: float = Field(4096.0, ge=0)
    """Live audio that may wait in temporary files (TMPDIR) because it came faster than it is heard, in megabytes."""

    fetch_private: bool = False
    """Recordings may be fetched from private addresses, too."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, _read_file())


def load_settings(**flags: Any) -> Settings:
    """The settings in force; flags that are None were not given. Raises BadOption for a value that is wrong."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise _explain(error, given) from None


def config_file() -> Path:
    """Where the settings file is looked for, whether it is there or not."""
    if path := os.environ.get(CONFIG_VARIABLE):
        return Path(path).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path("~/.config").expanduser()) / "conure" / "config.toml"


def _read_file() -> dict[str, Any]:
    path = config_file()
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        if os.environ.get(CONFIG_VARIABLE):
            raise BadOption(f"{CONFIG_VARIABLE} names {path}, which does not exist") from None
        return {}
    except OSError as error:
        raise BadOption(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadOption(f"{path} is not TOML: {error}") from error
    for key in values.keys() - Settings.model_fields.keys():
        close = difflib.get_close_matches(key, Settings.model_fields, n=1)
        known = f"did you mean {close[0]}?" if close else f"known are: {', '.join(Settings.model_fields)}"
        raise BadOption(f"{path} sets {key!r}, which is no setting", known)
    return values


def _explain(error: ValidationError, flags: dict[str, Any]) -> BadOption:
    first = error.errors()[0]
    name = str(first["loc"][0])
    variable = PREFIX + name.upper()
    if name in flags:
        source = "--" + name.replace("_", "-")
    elif os.environ.get(variable):
        source = variable
    else:
        source = f"{name} in {config_file()}"
    return BadOption(f"{source} is {first['input']!r}", _rule(name, first["msg"]))


def _rule(name: str, message: str) -> str:
    if name == "device":
        return "it must be auto, cpu, cuda or cuda:N"
    if name.endswith("port"):
        return "it must be 0 for off, free, or a number up to 65535"
    return message[:1].lower() + message[1:]
