"""Groq's numbers about limits: response headers, Go durations and the sentence of a 429 or 413."""

from __future__ import annotations

import math
import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from vessel.upstream.outcome import RateHeaders

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_WAIT_S = 86400.0
LARGEST_COUNT = 10**12

_GO_PART = r"\d{1,15}(?:\.\d{0,15})?(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
_GO = re.compile(rf"(?a)([+-]?)((?:{_GO_PART}){{1,8}})")
_GO_PIECE = re.compile(r"(?a)([\d.]+)([a-z\u00b5\u03bc]+)")
_GO_SECONDS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_NUMBER = re.compile(r"(?a)[+-]?\d{1,30}(?:\.\d{0,30})?(?:[eE]\+?\d{1,2})?")
_COUNT = re.compile(r"(?a)-?\d{1,18}")

_WINDOW_S = {"m": 60.0, "d": 86400.0, "h": 3600.0}
_NAMES = {
    "tokens per minute": "tpm",
    "tokens per day": "tpd",
    "requests per minute": "rpm",
    "requests per day": "rpd",
    "input tokens per minute": "itpm",
    "output tokens per minute": "otpm",
}
_LONGEST_TEXT = 2000
_LONGEST_DATE = 60
_NAME_CODE = re.compile(r"(?a)\(([A-Z]{3,4})\)\s*:")
_NAME_WORDS = re.compile(r"(?a)\bon ((?:input |output )?(?:tokens|requests) per (?:minute|day))\b")
_LIMIT = re.compile(r"(?a)\bLimit:?\s+(\d[\d,]{0,17})")
_USED = re.compile(r"(?a)\bUsed:?\s+(\d[\d,]{0,17})")
_REQUESTED = re.compile(r"(?a)\bRequested:?\s+~?(\d[\d,]{0,17})")
_AGAIN = re.compile(rf"(?a)try again in ((?:{_GO_PART}){{1,8}})")


class LimitText(NamedTuple):
    """What the text of a 429 or 413 names; every part may be missing."""

    limit_name: str | None
    limit: int | None
    used: int | None
    requested: int | None
    wait_s: float | None


def parse_go_duration(text: str) -> float | None:
    """Read Go's `time.Duration` text (`2m59.56s`, `450ms`) as seconds; negative is 0, anything else is None."""
    text = text.strip()
    if text == "0":
        return 0.0
    found = _GO.fullmatch(text)
    if not found:
        return None
    seconds = math.fsum(float(number) * _GO_SECONDS[unit] for number, unit in _GO_PIECE.findall(found[2]))
    return 0.0 if found[1] == "-" else seconds


def rate_headers(headers: Mapping[str, str]) -> RateHeaders:
    """Read the rate headers of an answer, names in lower case; what is missing or garbage is None, negative is 0."""
    return RateHeaders(
        limit_requests=_count(headers, "x-ratelimit-limit-requests"),
        remaining_requests=_count(headers, "x-ratelimit-remaining-requests"),
        reset_requests_s=_reset(headers, "x-ratelimit-reset-requests"),
        limit_tokens=_count(headers, "x-ratelimit-limit-tokens"),
        remaining_tokens=_count(headers, "x-ratelimit-remaining-tokens"),
        reset_tokens_s=_reset(headers, "x-ratelimit-reset-tokens"),
        retry_after_s=_retry_after(headers),
    )


def parse_limit_text(message: str) -> LimitText | None:
    """Read the limit, its use and the wait out of a 429 or 413 text; None when it speaks of no limit.

    Without a wait in the text it is computed as Groq does, `(used + requested - limit) / limit x window`: every
    limit is a bucket that refills continuously (checked on 13 real texts, groq-facts 1.8).
    """
    text = message[:_LONGEST_TEXT]
    limit, used, requested = (_first_count(pattern, text) for pattern in (_LIMIT, _USED, _REQUESTED))
    again = _AGAIN.search(text)
    if limit is None and again is None:
        return None
    name = _limit_name(text)
    wait = parse_go_duration(again[1]) if again else None
    if wait is None and name and limit and used is not None and requested is not None and requested <= limit:
        wait = max(0.0, (used + requested - limit) / limit * _WINDOW_S[name[-1]])
    return LimitText(name, limit, used, requested, None if wait is None else min(wait, LONGEST_WAIT_S))


def _limit_name(text: str) -> str | None:
    code = _NAME_CODE.search(text)
    if code and code[1][-1].lower() in _WINDOW_S:
        return code[1].lower()
    words = _NAME_WORDS.search(text)
    return _NAMES.get(words[1]) if words else None


def _first_count(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return min(int(found[1].replace(",", "")), LARGEST_COUNT) if found else None


def _count(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(name, "").strip()
    return min(max(int(value), 0), LARGEST_COUNT) if _COUNT.fullmatch(value) else None


def _reset(headers: Mapping[str, str], name: str) -> float | None:
    value = headers.get(name)
    seconds = parse_go_duration(value) if value else None
    return None if seconds is None else min(seconds, LONGEST_WAIT_S)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if _NUMBER.fullmatch(value):
        return min(max(float(value), 0.0), LONGEST_WAIT_S)
    until = _http_date(value)
    if until is None:
        return None
    now = _http_date(headers.get("date", ""))  # the server's own clock: ours may be wrong
    return min(max(until - (time.time() if now is None else now), 0.0), LONGEST_WAIT_S)


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if len(text) <= _LONGEST_DATE else None
    except (ValueError, OverflowError, OSError):
        return None
