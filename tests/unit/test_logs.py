"""Logs hold ids and classes, never what people wrote or what opens a door."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_canaries_are_masked_however_deep_they_lie(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    """Lists, mappings, bytes-like keys and exceptions as values are no way around the redaction."""
    configure_logs(log_format)  # type: ignore[arg-type]  # parametrized over its two values
    deep = {"headers": [{"authorization": f"Bearer {CANARY}"}], "request": {"messages": [CANARY], "n": 3}}
    get_logger("x").warning(
        "job.odd", told=deep, error=ValueError(CANARY), url=f"redis://:{CANARY}@h", key_of={"api_key": CANARY}
    )
    logging.getLogger("y").warning("odd: %s", f"gsk_{CANARY}")
    shown = capsys.readouterr().err
    assert CANARY not in shown
    assert "ValueError" in shown


def test_bound_ids_are_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Also in lines of other libraries, which know nothing of them."""
    configure_logs("json")
    with structlog.contextvars.bound_contextvars(job_id="job_1", request_id="req_2"):
        get_logger("x").info("a")
        logging.getLogger("y").info("b")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["job_id"], line["request_id"]) for line in lines] == [("job_1", "req_2")] * 2


@pytest.mark.parametrize(
    "secret",
    ["gsk_abcdefgh123456", "sk-abcdefgh", "Bearer abc.def", "whsec_AB+/cdef", "redis://user:hunter2@host:6379/0"],
)
def test_secrets_are_masked_by_shape(secret: str) -> None:
    """Keys, bearer tokens and passwords in URLs never survive a log line."""
    masked = redact_text(f"before {secret} after")
    assert "[redacted]" in masked
    assert not any(part in masked for part in ("abcdefgh", "abc.def", "hunter2", "=="))
