"""Batch files: lines are found in any stream of pieces, and what is wrong with one is told without echoing it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.batches import lines as module
from vessel.batches.files import Upload, output_line, places
from vessel.batches.lines import BLOCK, Checker, Splitter, parse_line, read_block
from vessel.batches.model import (
    CHUNK,
    MOST_LINES,
    EmptyFile,
    FileTooLarge,
    TooManyLines,
    checked_metadata,
    window_s,
)
from vessel.client.submitting import estimate_of, pieces
from vessel.errors import InvalidRequest
from vessel.gate.view import Level
from vessel.registry import Availability
from vessel.settings import load_settings
from vessel.submit import Door

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.batches.estimate import Estimate

CANARY = "canary-7f3a"
GOOD: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": CANARY}]},
}


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """Give a door without a Redis."""
    return Door(load_settings({}, data_dir=tmp_path))


def checker(door: Door) -> Checker:
    """Give a checker for models as they are today."""
    from datetime import date  # noqa: PLC0415  only here
    from functools import partial  # noqa: PLC0415  only here

    known = Availability(listed=None, gone=frozenset(), today=date(2026, 11, 27))
    return Checker(partial(door.plan, availability=known))


def checked(door: Door, *rows: Any) -> Checker:
    """Check some lines."""
    found = checker(door)
    found.feed(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    found.finish()
    return found


def body(**more: Any) -> dict[str, Any]:
    """Write a line with another body."""
    return GOOD | {"body": GOOD["body"] | more}


@given(st.lists(st.sampled_from([b"a", b"bc" * 40, b"", b" ", b"\r", b"\xff"]), max_size=30), st.integers(1, 50))
def test_lines_are_the_same_however_the_bytes_are_cut(rows: list[bytes], size: int) -> None:
    """Numbers, offsets and texts do not depend on the pieces; the count of an upload agrees."""
    data = b"\n".join(rows)
    splitter, upload = Splitter(), Upload()
    found: list[tuple[int, int, int, bytes | None]] = []
    for at in range(0, len(data), size):
        found += splitter.feed(data[at : at + size])
        assert list(upload.feed(data[at : at + size])) == []
    found += splitter.finish()
    wanted = [(n, row) for n, row in enumerate(data.split(b"\n"), 1) if row.strip()]
    assert [(number, text) for number, _, _, text in found] == wanted
    assert all(data[offset : offset + length] == text for _, offset, length, text in found)
    assert upload.lines == len(wanted)


def test_a_byte_order_mark_stands_before_the_first_line_only() -> None:
    """It is no part of the line, and offsets still fit."""
    (row,) = Splitter().feed(b"\xef\xbb\xbf{}\n")
    assert row == (1, 3, 2, b"{}")


def test_a_line_without_an_end_is_not_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line beyond the bound is reported with its length, and the next one is read."""
    monkeypatch.setattr(module, "LONGEST_LINE", 100)
    splitter = Splitter()
    found = [row for _ in range(50) for row in splitter.feed(b"x" * 30)] + list(splitter.feed(b"\n{}\n"))
    assert found == [(1, 0, 1500, None), (2, 1501, 2, b"{}")]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "invalid_json_line"),
        (b"[]", "invalid_json_line"),
        (b"null", "invalid_json_line"),
        (b'"x"', "invalid_json_line"),
        (b"\xff\xfe", "invalid_json_line"),
        (b"[" * 100_000, "invalid_json_line"),
        (b'{"a":NaN}', "invalid_json_line"),
        (b'{"a":' + b"9" * 5000 + b"}", "invalid_json_line"),
        (b'{"custom_id":"a","custom_id":"b"}', "invalid_json_line"),
        ({k: v for k, v in GOOD.items() if k != "custom_id"}, "missing_custom_id"),
        (GOOD | {"custom_id": 7}, "invalid_custom_id"),
        (GOOD | {"custom_id": ""}, "invalid_custom_id"),
        (GOOD | {"custom_id": "a\nb"}, "invalid_custom_id"),
        (GOOD | {"custom_id": "\ud800"}, "invalid_custom_id"),
        (GOOD | {"custom_id": "x" * 10_000}, "invalid_custom_id"),
        (GOOD | {"method": "GET"}, "invalid_method"),
        (GOOD | {"url": "/v1/embeddings"}, "invalid_url"),
        (GOOD | {"url": None}, "invalid_url"),
        (GOOD | {"body": []}, "invalid_body"),
        ({k: v for k, v in GOOD.items() if k != "body"}, "invalid_body"),
        (body(vessel=7), "invalid_body"),
        (body(vessel={"idempotency_key": "k"}), "invalid_body"),
        (body(vessel={"prioritty": "batch"}), "invalid_request"),
        (body(model="no/such"), "model_not_found"),
        (body(messages=[]), "invalid_request"),
        (body(messages=[{"role": "user", "content": "\ud800" + CANARY}]), "invalid_request"),
        (body(temperature=3), "invalid_request"),
        (body(temperature=True), "invalid_request"),
        (body(n=2), "invalid_request"),
        (body(max_tokens=0), "invalid_request"),
        (body(max_tokens="9"), "invalid_request"),
        (body(stream=True), "invalid_request"),
        (body(messages=[{"role": "user", "content": "word " * 200_000}]), "context_length_exceeded"),
    ],
)
def test_a_faulty_line_is_told_with_its_number_and_not_echoed(door: Door, line: Any, code: str) -> None:
    """The report names line and code; the lines around it are read; nothing of the prompt is in it."""
    first, last = GOOD | {"custom_id": "first"}, GOOD | {"custom_id": "last"}
    found = checked(door, first, line, last)
    assert [(fault.line, fault.code) for fault in found.faults] == [(2, code)]
    assert CANARY not in repr(found.faults)
    assert found.index.lines == 2


def test_at_most_a_hundred_faults_are_told(door: Door) -> None:
    """A report stays readable."""
    assert len(checked(door, *([b"{"] * 500)).faults) == 100


def test_one_line_too_many_ends_the_check(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds in the check as well as in the upload."""
    monkeypatch.setattr(module, "MOST_LINES", 3)
    with pytest.raises(TooManyLines):
        checked(door, *(GOOD | {"custom_id": str(n)} for n in range(4)))
    with pytest.raises(TooManyLines):
        list(Upload().feed(b"x\n" * (MOST_LINES + 1)))


def test_an_upload_is_cut_into_chunks_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes come out once; too many, or none that say anything, are refused."""
    upload, data = Upload(), (b"x" * 99 + b"\n") * (3 * CHUNK // 100)
    out = list(upload.feed(data))
    assert b"".join([*out, upload.finish()]) == data
    assert {len(chunk) for chunk in out} == {CHUNK}
    assert upload.chunks == len(out) + 1
    with pytest.raises(EmptyFile):
        Upload().finish()
    monkeypatch.setattr("vessel.batches.files.MOST_BYTES", 10)
    with pytest.raises(FileTooLarge):
        list(Upload().feed(b"x" * 11))


def test_the_index_groups_lines_by_model_and_keeps_their_order(door: Door) -> None:
    """Each group's blocks hold its lines in the file's order, with where they lie."""
    models = ("openai/gpt-oss-20b", "openai/gpt-oss-120b")
    rows = [body(model=models[n % 2]) | {"custom_id": f"r{n}"} for n in range(2 * BLOCK + 4)]
    found = checked(door, *rows)
    assert (found.index.totals, found.index.models) == ([BLOCK + 2, BLOCK + 2], list(models))
    blocks = dict(found.index.ready)
    assert sorted(blocks) == ["0:0", "0:1", "1:0", "1:1"]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    for group in (0, 1):
        read = [row for block in (0, 1) for row in read_block(blocks[f"{group}:{block}"])]
        assert [row[3] for row in read] == [f"r{n}" for n in range(group, 2 * BLOCK + 4, 2)]
        assert all(parse_line(data[at : at + length]).custom_id == name for _, at, length, name in read)


def test_an_answer_that_came_in_several_lines_is_one_line_of_the_output() -> None:
    """Newlines around and between its tokens go, those in its texts are escaped and stay."""
    answer = b'{\r\n "text": "a\\nb"\n}\n'
    line = output_line("batch_1", "0:0", "r1", answer)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert b"\r" not in line
    assert json.loads(line)["response"]["body"] == {"text": "a\nb"}


def test_a_list_entry_is_a_line_or_a_range_of_lines_without_jobs() -> None:
    """Ranges tell how their lines ended."""
    assert list(places("0:7")) == [(0, 7, "")]
    assert list(places("2:3-5 cancelled")) == [(2, 3, "cancelled"), (2, 4, "cancelled")]


@pytest.mark.parametrize("window", ["23h", "8d", "1w", "24", "", "24H", "-1d", "٢٤h", None, 86400, "9" * 400 + "h"])
def test_a_window_outside_a_day_to_a_week_is_refused(window: object) -> None:
    """The parameter is named."""
    with pytest.raises(InvalidRequest) as refused:
        window_s(window)
    assert refused.value.param == "completion_window"


def test_windows_of_a_day_to_a_week_are_taken() -> None:
    """In hours or days."""
    assert [window_s(text) for text in ("24h", "1d", "36h", "7d", "168h")] == [86400, 86400, 129600, 604800, 604800]


@pytest.mark.parametrize("metadata", [[], "x", {1: "a"}, {"a": 1}, {"k" * 65: "v"}, {"a": "v" * 513}, {"a": "\ud800"}])
def test_metadata_that_no_record_may_hold_is_refused(metadata: object) -> None:
    """The parameter is named."""
    with pytest.raises(InvalidRequest) as refused:
        checked_metadata(metadata)
    assert refused.value.param == "metadata"


def test_an_estimate_adds_up_lines_tokens_cost_and_the_time_of_the_slowest_model(door: Door) -> None:
    """Bounded answers bound the cost; limits that are full let the rest through as they refill."""
    rows = [body(max_tokens=100) | {"custom_id": f"r{n}"} for n in range(5000)]
    checker_ = checked(door, *rows)
    (name,) = checker_.tallies
    limits = door.model_of(name).limits[door.settings.groq_plan]
    assert limits.tpm
    full = Level("tpm", limits.tpm, limits.tpm)
    found: Estimate = estimate_of(door, checker_, {name: {"tpm": full}})
    (part,) = found.models
    assert (part.lines, part.most_output_tokens, part.typical_output_tokens) == (5000, 500_000, 500_000)
    assert part.prompt_tokens > 5000 * 75
    assert found.worst_cost_usd == part.worst_cost_usd > 0
    assert found.seconds == pytest.approx(60 * (part.prompt_tokens + 500_000 - limits.tpm) / limits.tpm, abs=0.01)
    tight = {"tpm": full, "rpm": Level("rpm", 100, 10, learned=True)}
    assert estimate_of(door, checker_, {name: tight}).seconds == pytest.approx(60 * (5000 - 10) / 100)
    assert estimate_of(door, checker_, {}).seconds is None


def test_a_program_may_submit_prompts_bodies_and_batch_lines(door: Door) -> None:
    """Each becomes a batch line; what has no id gets its number."""
    given_rows: list[dict[str, Any]] = [
        {"prompt": "hi", "tier": "power"},
        {"messages": [{"role": "user", "content": "x"}], "custom_id": "mine"},
        GOOD,
    ]
    rows = [json.loads(row) for row in b"".join(pieces(given_rows)).splitlines()]
    assert [row["custom_id"] for row in rows] == ["line-1", "mine", "a"]
    assert rows[0]["body"]["vessel"] == {"tier": "power"}
    assert checked(door, *rows).faults == []
    with pytest.raises(InvalidRequest, match="Line 1"):
        list(pieces([{"prompt": 7}]))
