"""The kinds of values that settings have, each with its check; a ValueError's text says what the value must be."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

PREFIX = "VESSEL_"
FOREIGN = frozenset({"groq_api_key", "groq_api_key_file", "groq_base_url", "openai_api_key", "openai_base_url"})
"""Fields whose variable has no prefix, because the SDKs read the same ones."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Plan = Literal["developer", "free"]
LogFormat = Literal["console", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
WEBHOOK_SECRET = re.compile(r"whsec_(?:[A-Za-z0-9+/]{4}){8,21}(?:[A-Za-z0-9+/]{2,4}={0,2})?")


def env_name(field: str) -> str:
    """Name the environment variable of a field."""
    return field.upper() if field in FOREIGN else PREFIX + field.upper()


def checked_label(value: str) -> str:
    """Check a name that becomes part of Redis keys and queue names."""
    if not _LABEL.fullmatch(value):
        raise ValueError("must be 1 to 64 letters, digits, '_', '.' or '-', and start with a letter or digit")
    return value


def checked_path(value: Path) -> Path:
    """Make a path absolute. Raises ValueError."""
    try:
        return value.expanduser().absolute()
    except RuntimeError:
        raise ValueError("names a user without a home directory") from None


def checked_base_url(value: str) -> str:
    """Check an http(s) address. Raises ValueError."""
    try:
        parts = urlsplit(value.strip())
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # its text quotes the port, which may be half of a password
        usable = False
    if not usable:
        raise ValueError("must be an http or https address such as https://api.groq.com")
    return value.strip().rstrip("/")


def checked_groq_base_url(value: str) -> str:
    """Check an address as the groq SDK reads it. Raises ValueError."""
    url = checked_base_url(value)
    if urlsplit(url).path.endswith("/openai/v1"):
        raise ValueError("must not end in /openai/v1: it is added; write only what comes before: https://api.groq.com")
    return url


def checked_webhook_secret(value: SecretStr) -> SecretStr:
    """Check one secret, or several with blanks between. Raises ValueError."""
    if not all(map(WEBHOOK_SECRET.fullmatch, value.get_secret_value().split())):
        raise ValueError("must be whsec_ and 24 to 64 bytes in base64; `vessel webhooks secret` shows one")
    return value


def upper(value: object) -> object:
    """Take a word in any case."""
    return value.strip().upper() if isinstance(value, str) else value


def lower(value: object) -> object:
    """Take a word in any case."""
    return value.strip().lower() if isinstance(value, str) else value


Label = Annotated[str, AfterValidator(checked_label)]
FilePath = Annotated[Path, AfterValidator(checked_path)]
Port = Annotated[int, Field(ge=1, le=65535)]
Price = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def checked_names(value: str) -> str:
    """Check host names with commas between. Raises ValueError."""
    if not re.fullmatch(r"(\*|[A-Za-z0-9_.-]{1,253})?(,(\*|[A-Za-z0-9_.-]{1,253}))*", value):
        raise ValueError("holds host names such as vessel.example.org, commas between, without scheme and port")
    return value


def did_you_mean(name: str | None) -> str:
    """Suggest a name, or nothing."""
    return f"; did you mean {name}?" if name else ""
