"""Logs hold ids and classes, never what people wrote or what opens a door."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from vessel.observe.logs import configure_logs, get_logger, redact_text

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary-51c0ffee"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("through", ["structlog", "stdlib"])
def test_an_exception_is_logged_by_class_and_place(
    capsys: pytest.CaptureFixture[str], log_format: str, through: str
) -> None:
    """The text of an exception may hold a prompt, so only its class and place are written."""
    configure_logs(log_format)  # type: ignore[arg-type]  # parametrized over its two values
    try:
        int(CANARY)
    except ValueError:
        (get_logger("x") if through == "structlog" else logging.getLogger("x")).exception("job.broken")
    shown = capsys.readouterr().err
    assert "job.broken" in shown
    assert "ValueError" in shown
    assert CANARY not in shown


@pytest.mark.parametrize("field", ["prompt", "messages", "content", "response", "body", "api_key"])
def test_fields_that_hold_text_are_masked(capsys: pytest.CaptureFixture[str], field: str) -> None:
    """A forbidden field name masks its value whatever it is."""
    configure_logs("json")
    get_logger("x").warning("job.odd", **{field: CANARY})
    assert CANARY not in capsys.readouterr().err


@pytest.mark.parametrize(
    "secret", ["gsk_abcdefgh123456", "sk-abcdefgh", "Bearer abc.def", "redis://user:hunter2@host:6379/0"]
)
def test_secrets_are_masked_by_shape(secret: str) -> None:
    """Keys, bearer tokens and passwords in URLs never survive a log line."""
    masked = redact_text(f"before {secret} after")
    assert "[redacted]" in masked
    assert not any(part in masked for part in ("abcdefgh", "abc.def", "hunter2"))
