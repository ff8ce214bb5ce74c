"""Settings from the environment: typed, frozen, and every fault reported at once, with a suggestion."""

from __future__ import annotations

import json
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from vessel.errors import SettingsError
from vessel.settings.contradictions import contradictions
from vessel.settings.redis_urls import checked_redis_url
from vessel.settings.values import (
    PREFIX,
    FilePath,
    Label,
    LogFormat,
    LogLevel,
    Plan,
    Port,
    Price,
    Seconds,
    checked_base_url,
    checked_groq_base_url,
    checked_names,
    checked_webhook_secret,
    did_you_mean,
    env_name,
    lower,
    upper,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails


SERVER_FILE = "server.json"
"""Where a running `vessel up` writes its Redis down, in the data directory, readable by its user only."""
_LONGEST_SHOWN = 32
_SECRET_SHAPE = re.compile(r"://|^(gsk_|sk-|vsl_|whsec_)")


class Settings(BaseSettings):
    """What the environment says, checked. Made by `load_settings`; making one directly reads no environment."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", alias_generator=env_name, populate_by_name=True)

    groq_api_key: SecretStr | None = None
    """The key for Groq; commands that call Groq need it or the file."""
    groq_api_key_file: FilePath | None = None
    """Holds the key, and is read again when it changes; with it set, `GROQ_API_KEY` does not count."""
    groq_base_url: Annotated[str, AfterValidator(checked_groq_base_url)] = "https://api.groq.com"
    """Where Groq is, as its SDK reads it: without `/openai/v1` at the end."""
    groq_plan: Annotated[Plan, BeforeValidator(lower)] = "developer"
    """The plan whose limits count: `developer` or `free`."""
    org: Label = "default"
    """Label of the organisation whose limits are shared."""

    redis_url: Annotated[str, AfterValidator(checked_redis_url)] | None = Field(default=None, repr=False)
    """`redis://`, `rediss://`, `unix://` or `sentinel://`, or a `file://` with one in it; unset: of `vessel up`."""
    namespace: Label = "vessel"
    """Prefix of every key and queue, so that several vessels share a Redis."""
    data_dir: FilePath = Field(default=Path("var"), validate_default=True)
    """Spool, embedded server and usage log."""
    registry: FilePath | None = None
    """A TOML file that overrides or extends the shipped model registry."""

    api_host: str = "127.0.0.1"
    """Address of the REST face."""
    api_port: Port = 8080
    """Port of the REST face."""
    api_tls_cert: FilePath | None = None
    """Certificate for TLS on the REST face; with its key."""
    api_tls_key: FilePath | None = None
    """Key of that certificate."""
    api_key_file: FilePath | None = None
    """Holds a first API key, so that a container can bind off loopback."""
    api_hosts: Annotated[str, AfterValidator(checked_names)] = ""
    """Names under which the REST face is called beside its address and `localhost`, with commas between; `*`: any."""
    mcp_port: Port = 8081
    """Port of the MCP face over HTTP."""
    flower_host: str = "127.0.0.1"
    """Address of Flower; off loopback it needs a login."""
    flower_port: Port = 5555
    """Port of Flower."""
    flower_auth_file: FilePath | None = None
    """Holds Flower's `user:password`."""
    metrics_host: str = "127.0.0.1"
    """Address of workers' metrics, which ask for no key."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9108
    """Port of a worker's metrics; further processes of a host take the next free one; 0: none."""
    tracing: bool = False
    """Whether traces are sent, to where OTEL_EXPORTER_OTLP_ENDPOINT says; needs the extra `otel`."""
    webhook_allow_private: bool = False
    """Whether webhooks may go to private addresses."""
    webhook_secret: Annotated[SecretStr, AfterValidator(checked_webhook_secret)] | None = None
    """`whsec_...`, which signs webhooks; several with blanks between all sign. Unset: one is made for each tenant."""
    webhook_secret_file: FilePath | None = None
    """Holds it, and is read again for every webhook; with it set, `VESSEL_WEBHOOK_SECRET` does not count."""
    usage_log: FilePath | None = None
    """The usage log; unset: `usage_log.jsonl` in the data directory."""
    usage_log_max_bytes: Annotated[int, Field(ge=0)] = 100 << 20
    """At this size the usage log is put aside, named by the time of its last line, and a new one begun; 0: never."""
    usage_log_daily: bool = False
    """Whether the usage log also begins anew at midnight UTC."""
    ledger_retention: Annotated[int, Field(ge=1, le=3650)] = 90
    """How many days Redis keeps ledger entries once they are in the usage log; the sums of days stay ten years."""
    result_ttl: Annotated[int, Field(ge=1)] = 604_800
    """How long finished jobs stay readable, in seconds."""
    log_format: Annotated[LogFormat, BeforeValidator(lower)] | None = None
    """`console` or `json`; unset: console on a terminal, else json."""
    log_level: Annotated[LogLevel, BeforeValidator(upper)] = "INFO"
    """`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`."""
    openai_api_key: SecretStr | None = None
    """The key of the failover endpoint."""
    openai_base_url: Annotated[str, AfterValidator(checked_base_url)] | None = None
    """The failover endpoint, if it is not OpenAI's: any that speaks its API."""
    failover_model: str | None = None
    """The model that serves in an outage; arms the failover, without it OPENAI_* mean nothing here."""
    failover_rpm: Annotated[int, Field(ge=1)] = 60
    """Calls a minute that the failover endpoint is asked for at most, by all workers together."""
    failover_tpm: Annotated[int, Field(ge=1)] | None = None
    """Tokens a minute of it, if it limits them."""
    failover_price_input: Price | None = None
    """USD per million prompt tokens of the failover model, where the registry's price is not yours or it has none."""
    failover_price_output: Price | None = None
    """The same per million completion tokens; with the other one."""

    call_timeout: Seconds = 120.0
    """The total deadline of one upstream call, in seconds."""
    first_token_timeout: Seconds = 60.0
    """How long a streamed call may take to its first token, in seconds."""
    stream_idle_timeout: Seconds = 30.0
    """How long a streamed answer may pause between two chunks, in seconds."""
    lease: Seconds = 15.0
    """How long a claimed job may go unrenewed before another worker takes it, in seconds."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Job slots of one worker process."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Read arguments only: `load_settings` reads the environment, which may be a given one."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @property
    def usage_log_path(self) -> Path:
        """The usage log: where it was set to be, else in the data directory."""
        return self.usage_log or self.data_dir / "usage_log.jsonl"


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read the environment (`os.environ` unless given); overrides by field name win, None means not given.

    Variables that are set but empty count as unset. Raises SettingsError with every fault: unknown VESSEL_* names,
    bad values and contradictions. No fault shows a secret.
    """
    given = {name: value for name, value in (os.environ if environ is None else environ).items() if value.strip()}
    source = EnvSettingsSource(Settings, case_sensitive=True)
    source.env_vars = given
    values = source() | {env_name(field): value for field, value in overrides.items() if value is not None}
    settings, faults = _validate(values)
    faults = [*_unknown_names(given), *faults]
    if settings is None or faults:
        raise SettingsError(faults)
    return settings


def _validate(values: dict[str, Any]) -> tuple[Settings | None, list[str]]:
    """Check each value, then contradictions among the good ones; the pydantic error, which holds values, ends here."""
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        bad = {str(detail["loc"][0]) for detail in details}
        _, more = _validate({name: value for name, value in values.items() if name not in bad})
        return None, [_describe(detail) for detail in details] + [f for f in more if not any(name in f for name in bad)]
    return settings, contradictions(settings)


def _unknown_names(environ: Mapping[str, str]) -> list[str]:
    known = sorted(map(env_name, Settings.model_fields))
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return [
        f"{name}: there is no such setting{did_you_mean(next(iter(get_close_matches(name, known, 1, 0.7)), None))}"
        for name in unknown
    ]


def _describe(detail: ErrorDetails) -> str:
    """Say what is wrong with one value: name, rule, what was found unless it may be secret, what was meant."""
    name, value = str(detail["loc"][0]), detail["input"]
    context: dict[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            field = name.removeprefix(PREFIX).lower()
            close = next(iter(get_close_matches(field, Settings.model_fields, 1)), None)
            return f"{field}: there is no such setting{did_you_mean(close)}"
        case "value_error":
            return f"{name}: {context['error']}"
        case "literal_error":
            choices = re.findall(r"'([^']+)'", context["expected"])
            close = next(iter(get_close_matches(str(value), choices, 1)), None)
            return f"{name}: must be one of {', '.join(choices)}{_found(value)}{did_you_mean(close)}"
        case _:
            return f"{name}: {_RULES.get(detail['type'], detail['msg']).format(**context)}{_found(value)}"


_RULES = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be on or off",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


def _found(value: object) -> str:
    text = str(value)
    hidden = len(text) > _LONGEST_SHOWN or _SECRET_SHAPE.search(text) or isinstance(value, SecretStr)
    return "" if hidden else f", not {text!r}"


def resolve_redis_url(settings: Settings) -> str | None:
    """Find the Redis to use: the one set, else that of a running `vessel up` of this data directory, else None."""
    if settings.redis_url is not None:
        return settings.redis_url
    try:
        record = json.loads((settings.data_dir / SERVER_FILE).read_bytes())
        url, pid = record["redis_url"], record["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) and isinstance(pid, int) and process_alive(pid) else None


def process_alive(pid: int) -> bool:
    """Tell whether there is such a process, whoever it belongs to."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
