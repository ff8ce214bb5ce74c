"""What commands read: prompts, hints, ids and files of requests."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, get_args

import pytest

from vessel.cli.commands import options
from vessel.cli.faults import BadUse
from vessel.cli.reading import context, lines, prompt_text, request_line, words
from vessel.wire import JobState, OnOutage, Priority, SpeedPriority, TaskType

if TYPE_CHECKING:
    from enum import StrEnum
    from pathlib import Path


def _stdin(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))


def test_a_text_is_taken_as_it_is() -> None:
    """Spaces, quotes and what looks like markup stay."""
    assert prompt_text("  [bold] 'x' ") == "  [bold] 'x' "


def test_standard_input_loses_one_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    """`echo text | vessel query -` asks the text."""
    _stdin(monkeypatch, "é\n\n".encode())
    assert prompt_text("-") == "é\n"


@pytest.mark.parametrize("raw", [b"", b" \n", b"\xff\xfe"])
def test_an_empty_or_broken_prompt_is_refused(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    """Nothing is sent for it."""
    _stdin(monkeypatch, raw)
    with pytest.raises(BadUse, match="Nothing was sent"):
        prompt_text("-")


def test_hints_are_json_where_they_can_be() -> None:
    """Words like true and 3 are values, a bare name means true, the rest is text."""
    found = context(["requires_tools=true", "depth=3", "speed_critical", "note=a=b"])
    assert found == {"requires_tools": True, "depth": 3, "speed_critical": True, "note": "a=b"}
    assert context(None) is None


def test_ids_come_from_arguments_and_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` stands for the ids there; each counts once."""
    _stdin(monkeypatch, b"job_2\njob_3 job_1\n")
    assert words(["job_1", "-"]) == ["job_1", "job_2", "job_3"]


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    """Blank lines are passed over, a byte order mark is no part of the first."""
    file = tmp_path / "f"
    file.write_bytes(b"\xef\xbb\xbf{}\r\n\n  \n{}")
    assert [number for number, _ in lines(file)] == [1, 4]


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    """Its number is told."""
    file = tmp_path / "f"
    file.write_bytes(b"{}\n\xff\n")
    with pytest.raises(BadUse, match="line 2"):
        list(lines(file))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"x": 1}', "neither"),
        ('{"body": {}, "method": "GET"}', "only POST"),
        ('{"body": {}, "url": "/v1/embeddings"}', "only POST"),
        ('{"body": 7}', "body"),
    ],
)
def test_a_faulty_line_says_why(text: str, fault: str) -> None:
    """The fault stands without the line's own text."""
    with pytest.raises(ValueError, match=fault):
        request_line(text)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (options.TaskName, TaskType),
        (options.SpeedName, SpeedPriority),
        (options.PriorityName, Priority),
        (options.OutageName, OnOutage),
        (options.StateName, JobState),
    ],
)
def test_the_closed_sets_of_options_are_those_of_the_wire(written: object, meant: type[StrEnum]) -> None:
    """They are written out for a quick start and must not drift."""
    assert list(get_args(written)) == list(meant)


def test_an_endless_stream_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`vessel query - < /dev/urandom` once read until the memory was full."""
    monkeypatch.setattr("vessel.cli.reading.MOST_BYTES", 1 << 20)
    _stdin(monkeypatch, b"x" * ((1 << 20) + 1))
    with pytest.raises(BadUse, match=r"more than 1 MiB\. Nothing was sent"):
        prompt_text("-")
    file = tmp_path / "long.jsonl"
    file.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(BadUse, match=r"more than 1 MiB\. Nothing was sent"):
        list(lines(file))
