"""What Flower is given to show: ids, tiers, models and states of Vessel's messages; of anything else, nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.errors import SettingsError
from vessel.observe.logins import read_logins
from workers.flower import HIDDEN, _knows, reduce_event, shown_arguments, shown_result, shown_task

if TYPE_CHECKING:
    from pathlib import Path

JOB = "job_" + "a" * 32
CANARY = "canary-77"


def test_a_message_of_ours_is_shown_with_its_outcome() -> None:
    """Arguments stay as the ticket has them; the result says the state and the model that served."""
    assert shown_arguments(f"{JOB}:3 power openai/gpt-oss-120b") == f"{JOB}:3 power openai/gpt-oss-120b"
    assert shown_arguments(f"{JOB}:0+15 power.batch groq/compound") != HIDDEN
    result = repr([{"job": JOB, "state": "succeeded", "model": "openai/gpt-oss-20b"}])
    assert shown_result(result) == "succeeded on openai/gpt-oss-20b"
    assert shown_result("[]") == "dropped: not due"


@pytest.mark.parametrize(
    "text",
    [f"('{CANARY}',)", f"{JOB}:3 power {CANARY} and more", f"{JOB}:x", "[" * 10_000, f"[{{'state': '{CANARY} x'}}]", 7],
)
def test_anything_else_is_hidden(text: Any) -> None:
    """Another task's arguments or result, and broken ones, are replaced whole."""
    assert shown_arguments(text) == HIDDEN
    assert shown_result(text) == HIDDEN


@given(st.dictionaries(st.sampled_from(["args", "kwargs", "result", "exception", "traceback"]), st.text(max_size=30)))
def test_no_free_text_gets_through_and_reducing_again_changes_nothing(event: dict[str, str]) -> None:
    """Whatever a text says, a canary in it is gone."""
    spoilt = {name: f"{text}{CANARY} {text}" for name, text in event.items()}
    reduced = reduce_event({"type": "task-failed", **spoilt})
    assert CANARY not in repr(reduced)
    once = reduced.copy()
    result = once.pop("result", None)
    assert reduce_event(once) == once
    assert result in {None, HIDDEN}


def test_a_failure_of_the_pool_keeps_its_class_and_place() -> None:
    """`TaskFailed('ValueError at job.py:7')` holds nothing private; an exception with a message is hidden."""
    told = "TaskFailed('ValueError at job.py:7')"
    assert reduce_event({"exception": told, "traceback": CANARY}) == {"exception": told, "traceback": HIDDEN}
    assert reduce_event({"exception": f"ValueError('{CANARY}')"})["exception"] == HIDDEN


def test_a_kept_task_is_shown_as_it_was_reduced() -> None:
    """Flower's pages reduce again; what has been written out stays."""
    task = SimpleNamespace(args=f"{JOB}:0 power m", kwargs="{}", result="parked on openai/gpt-oss-20b", exception=None)
    shown_task(task)
    assert task.result == "parked on openai/gpt-oss-20b"
    assert shown_task(SimpleNamespace(args=None, kwargs=None, result=f"'{CANARY}'", exception=None)).result == HIDDEN


@pytest.mark.parametrize("text", ["", "\n", "nobody", ":secret", "user:", "user:a\nother", "u:\x07"])
def test_a_file_without_logins_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    """Every line needs a user and a password."""
    path = tmp_path / "logins"
    path.write_text(text)
    with pytest.raises(SettingsError, match="VESSEL_FLOWER_AUTH_FILE") as caught:
        read_logins(path)
    assert "secret" not in str(caught.value)


def test_logins_are_compared_whole() -> None:
    """Bad base64, another scheme, other letters and a prefix are no login; UTF-8 is."""
    logins = ["ann:pässword", "bob:two"]
    header = {
        "right": "Basic YW5uOnDDpHNzd29yZA==",
        "prefix": "Basic YW5uOnDDpA==",
        "other": "Bearer YW5uOnDDpHNzd29yZA==",
    }
    assert _knows(logins, header["right"])
    assert not any(_knows(logins, given) for given in (header["prefix"], header["other"], "Basic ***", "Basic", ""))


def test_a_missing_file_is_told_by_name(tmp_path: Path) -> None:
    """A path that cannot be read is a fault of the settings."""
    with pytest.raises(SettingsError, match="cannot be read"):
        read_logins(tmp_path / "none")
    assert read_logins(None) == []
