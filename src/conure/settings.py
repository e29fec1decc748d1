"""All settings, with their defaults and descriptions. A flag overrides the environment, which overrides the file.

    flag         --max-hours 2
    environment  CONURE_MAX_HOURS=2
    file         max_hours = 2        in ~/.config/conure/config.toml, or the path in CONURE_CONFIG

Only this module reads settings from the environment. It imports pydantic, so import it late where startup time counts.
"""

from __future__ import annotations

import difflib
import functools
import logging
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
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

__all__ = ["PROTOCOLS", "RENAMED", "Port", "Settings", "config_file", "load_settings", "with_current_names"]

log = logging.getLogger(__name__)

PROTOCOLS = ("native", "marker", "openai", "realtime", "deepgram", "riva", "parakeet", "wyoming", "page")
"""Valid names in `disable`."""

RENAMED = {
    "live": "live_models",
    "clips": "file_models",
    "workers": "decode_workers",
    "without": "disable",
    "open_to_all": "allow_anonymous",
    "slots": "max_streams",
    "max_unidentified": "max_unauthenticated",
    "fetch_private": "allow_private_urls",
}
"""Old names of settings to current ones. Old names still work everywhere, with a warning."""

Port = Annotated[int, Field(ge=0, le=65535)] | Literal["free"]
"""0 is off; `free` picks an unused port."""

PREFIX = "CONURE_"
CONFIG_VARIABLE = "CONURE_CONFIG"


def _default_cache() -> Path:
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "conure"
    if sys.platform == "win32" and (home := os.environ.get("LOCALAPPDATA")):
        return Path(home) / "conure" / "cache"
    return Path("~/.cache/conure").expanduser()


def _expand_path(path: Path) -> Path | None:
    """An empty path is None, so that a flag can unset the value in the file."""
    return path.expanduser() if path.parts else None


def _check_origins(origins: str) -> str:
    for origin in filter(None, map(str.strip, origins.split(","))):
        parts = urlsplit(origin)
        if origin not in ("*", "null") and (not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}".lower()):
            raise ValueError(f"{origin!r} is not a valid origin: use the form https://example.com, without a path")
    return origins


def _check_protocols(names: str) -> str:
    for name in filter(None, map(str.strip, names.split(","))):
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol {name!r}; valid names: {', '.join(PROTOCOLS)}")
    return names


class Settings(BaseSettings):
    """Validated settings; immutable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    model: str = Field("parakeet-tdt-0.6b-v3", min_length=1)
    """The model: a catalog name, a hub id, a .nemo file or a folder."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    """Where networks run: auto, cpu, cuda or cuda:N."""

    runner: RunnerChoice = "auto"
    """The backend that runs networks: auto picks the fastest available one that is accurate enough."""

    language: str | None = None
    """The spoken language, such as de or de-DE; if unset, the model detects or assumes one."""

    max_hours: float = Field(12.0, gt=0, allow_inf_nan=False)
    """Longest accepted recording, in hours; checked while decoding."""

    cache: Annotated[Path, AfterValidator(Path.expanduser)] = Field(default_factory=_default_cache)
    """Folder for converted models; downloads are in the cache of Hugging Face (HF_HOME)."""

    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads; default: as many as this process has cores."""

    decode_workers: int | None = Field(None, ge=1, le=64)
    """Processes that decode recordings when several are transcribed; default: one less than processors, at most 16."""

    processes: int | None = Field(None, ge=1, le=64)
    """Server processes that hold connections; default: one per eight processors, or one per two with a GPU."""

    segment_seconds: float = Field(30.0, ge=2, le=300)
    """Longest clip, in seconds, that a recording is split into."""

    batch_seconds: float | None = Field(None, ge=2)
    """Maximum audio, in seconds, in one batch; less saves memory. Default: 240 on a CPU, 1,920 on a GPU."""

    live_models: str = Field("nemotron-speech-streaming-en-0.6b", min_length=1)
    """Models for live audio in `conure serve`, separated by commas; the first is the default."""

    file_models: str | None = None
    """Models for recordings in `conure serve`, separated by commas; default: the value of model."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 accepts other machines, which requires keys or allow_anonymous."""

    port: Port = 8000
    """Port for HTTP and WebSocket. For every port, 0 turns it off and `free` picks an unused one."""

    tcp_port: Port = 8765
    """Port for lines of JSON over TCP."""

    grpc_port: Port | None = None
    """Port for Riva over gRPC; default: 50051 if conure[grpc] is installed."""

    wyoming_port: Port = 10300
    """Port for the Wyoming protocol, which Home Assistant uses."""

    status_port: Port = 8050
    """Port that reports the server's status as one line of JSON."""

    disable: Annotated[str, AfterValidator(_check_protocols)] = ""
    """Protocols to turn off, with commas: native, marker, openai, realtime, deepgram, riva, parakeet, wyoming, page."""

    keys: Annotated[Path, AfterValidator(_expand_path)] | None = None
    """File of API keys, written by `conure keys`; if unset, no key is required."""

    allow_anonymous: bool = False
    """Accept requests from other machines without keys."""

    tls_certificate: Annotated[Path, AfterValidator(_expand_path)] | None = None
    """File with the certificate chain (PEM); enables TLS for HTTP, WebSocket and gRPC."""

    tls_key: Annotated[Path, AfterValidator(_expand_path)] | None = None
    """File with the private key (PEM) of the certificate."""

    cors: Annotated[str, AfterValidator(_check_origins)] = ""
    """Origins of web pages that may use the server from a browser, with commas: https://example.com, or * for all."""

    key: SecretStr | None = None
    """API key that `conure stream` and `conure bench --url` send to a server."""

    max_streams: int | None = Field(None, ge=1, le=65536)
    """Streams that each live model can hold; default: as many as memory allows."""

    device_memory: float | None = Field(None, gt=0, le=1)
    """Fraction of a GPU's free memory to use, from 0 to 1; if unset, 0.9 is planned for and not enforced."""

    max_connections: int | None = Field(None, ge=2)
    """Connections per server process, of all clients; default: as many as its file descriptors allow."""

    max_unauthenticated: int | None = Field(None, ge=1)
    """Connections of these without a key, or without a first request if keys are off; default: half, at most 4,096."""

    start_seconds: float = Field(900.0, gt=0, allow_inf_nan=False)
    """Time limit for each step of the engine's start, such as opening a model, in seconds; then it is killed."""

    resume_seconds: float = Field(30.0, ge=0, le=3600)
    """Time that a disconnected client has to resume its stream, in seconds."""

    drain_seconds: float = Field(30.0, ge=0)
    """Time that open streams have to finish after the server is told to stop, in seconds."""

    max_upload_mb: float = Field(2048.0, gt=0)
    """Largest recording accepted over HTTP, in megabytes."""

    max_uploads: int = Field(128, ge=1)
    """Recordings that may be uploaded, queued and transcribed at once; each may use max_upload_mb of disk space."""

    max_backlog_mb: float = Field(4096.0, ge=0)
    """Live audio that waits in temporary files (TMPDIR) if it comes faster than it is processed, in megabytes."""

    allow_private_urls: bool = False
    """Allow recordings to be fetched from private addresses."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        old_variables = InitSettingsSource(settings_cls, _read_old_variables())
        return init_settings, env_settings, old_variables, InitSettingsSource(settings_cls, _read_file())


def load_settings(**flags: Any) -> Settings:
    """The effective settings; flags that are None were not given. Raises BadOption for an invalid value."""
    given = with_current_names(flags)
    try:
        return Settings(**given)
    except ValidationError as error:
        raise _explain(error, given) from None


def with_current_names(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given (not None), under the current names of their settings."""
    return _replace_old_names({name: value for name, value in flags.items() if value is not None}, _flag)


def config_file() -> Path:
    """Path of the settings file, which need not exist."""
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
        raise BadOption(f"{path} is not valid TOML: {error}") from error
    for key in values.keys() - Settings.model_fields.keys() - RENAMED.keys():
        close = difflib.get_close_matches(key, Settings.model_fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"valid settings: {', '.join(Settings.model_fields)}"
        raise BadOption(f"unknown setting {key!r} in {path}", hint)
    return _replace_old_names(values, lambda name: f"{name} in {path}")


def _read_old_variables() -> dict[str, str]:
    variables = {name.upper(): value for name, value in os.environ.items() if value}
    found = {old: variables[_variable(old)] for old in RENAMED if _variable(old) in variables}
    return _replace_old_names(found, _variable)


def _replace_old_names(values: Mapping[str, Any], spell: Callable[[str], str]) -> dict[str, Any]:
    """The values under current names. Where both names have a value, that of the current name is used."""
    current = {name: value for name, value in values.items() if name not in RENAMED}
    for old, new in RENAMED.items():
        if old in values:
            _warn_of_old_name(spell(old), spell(new))
            current.setdefault(new, values[old])
    return current


@functools.cache
def _warn_of_old_name(old: str, new: str) -> None:
    """Once in each process."""
    log.warning("%s is deprecated; use %s", old, new)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _explain(error: ValidationError, flags: Mapping[str, Any]) -> BadOption:
    first = error.errors()[0]
    name = str(first["loc"][0])
    old_names = [old for old, new in RENAMED.items() if new == name]
    variables = [variable for variable in map(_variable, (name, *old_names)) if os.environ.get(variable)]
    if name in flags:
        source = _flag(name)
    elif variables:
        source = variables[0]
    else:
        source = f"{name} in {config_file()}"
    return BadOption(f"{source} is {first['input']!r}", _rule(name, first["msg"]))


def _rule(name: str, message: str) -> str:
    if name == "device":
        return "it must be auto, cpu, cuda or cuda:N"
    if name.endswith("port"):
        return "it must be 0 for off, free, or a number up to 65535"
    return message[:1].lower() + message[1:]
