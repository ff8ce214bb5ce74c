"""`vessel usage` and caps of batches on the command line, against a Redis without workers."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.books import Books, backdated, row
from tests.integration.running_up import Ran, environment
from vessel.cli import main
from vessel.keyspace.names import Keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

pytestmark = pytest.mark.redis("valkey")


@pytest.fixture
def vessel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, redis_url: str, tmp_path: Path
) -> Callable[..., Ran]:
    """Give the command line in this process."""
    for name, value in environment(tmp_path, VESSEL_REDIS_URL=redis_url).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main.run(arguments)
        written = capsys.readouterr()
        return Ran(code, written.out, written.err)

    return run


@pytest.fixture
def books(redis_client: redis.Redis) -> Books:
    """Give a ledger with four calls: two days old, and now for two tenants, one of them with a tag like a formula."""
    made = Books(redis_client, Keys("vessel"))
    backdated(made, 48, 1)
    made.called(row("0.25", tenant="acme", tier="power", model="openai/gpt-oss-120b", tags={"=cmd": "x|y"}))
    made.called(row("0.5"))
    return made


def table_of(ran: Ran) -> list[list[str]]:
    """Read CSV."""
    return list(csv.reader(io.StringIO(ran.out)))


def test_a_report_for_people(vessel: Callable[..., Ran], books: Books) -> None:
    """A day by default, totals, UTC said, what routing saved."""
    ran = vessel("usage")
    assert (ran.code, ran.err) == (0, "")
    assert "(UTC), by model" in ran.out
    assert "total" in ran.out
    assert "0.7500375125" in ran.out
    assert "most expensive tier" in ran.out
    assert books.report().total.calls == 3


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("model", {"openai/gpt-oss-120b", "openai/gpt-oss-20b"}), ("tier", {"power", "ultra_fast"}),
        ("tenant", {"acme", "t"}), ("tag", {"=cmd=x|y", "age=1", "age=48", "-"}), ("vessel", {"groq"}),
    ],
)  # fmt: skip
def test_it_sums_up_by_anything(vessel: Callable[..., Ran], by: str, groups: set[str]) -> None:
    """As a document and as CSV, with the same groups; a formula is none in CSV."""
    found = vessel("usage", "--since", "3d", "--by", by, "--json").document
    assert {one["group"] for one in found["data"]} == groups
    assert (found["total"]["calls"], found["total"]["cost_usd"]) == (4, 0.750075025)
    assert (found["timezone"], found["by"]) == ("UTC", by)
    head, *rows = table_of(vessel("usage", "--since", "3d", "--by", by, "--csv", "-"))
    assert head[0] == by
    assert {cells[0].removeprefix("'") for cells in rows} == groups
    assert not any(cells[0].startswith("=") for cells in rows)


@pytest.mark.usefixtures("books")
def test_entries_are_exported_and_the_log_is_rebuilt(vessel: Callable[..., Ran], tmp_path: Path) -> None:
    """CSV has a row for each entry, JSON its line in the log, and the rebuilt log is never written over a file."""
    head, *rows = table_of(vessel("usage", "--entries", "--since", "3d", "--csv", "-"))
    assert (len(rows), rows[2][head.index("cost_usd")]) == (4, "0.25")
    assert json.loads(rows[2][head.index("tags")]) == {"=cmd": "x|y"}
    lines = vessel("usage", "--entries", "--since", "3d", "--json").out
    out = tmp_path / "again.jsonl"
    assert vessel("usage", "--rebuild-log", str(out), "--json").document == {"entries": 4, "file": str(out)}
    assert out.read_text("utf-8") == lines == vessel("usage", "--rebuild-log", "-").out
    again = vessel("usage", "--rebuild-log", str(out))
    assert (again.code, "exists" in again.err) == (2, True)
    ours = vessel("usage", "--entries", "--tenant", "acme")
    assert ours.err == ""
    assert ("acme" in ours.out, "ultra_fast" in ours.out, ours.code) == (True, False, 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--since", "soon"), "is no time"), (("--since", "today", "--until", "2d"), "behind the end"),
        (("--by", "prompt"), "prompt"), (("--csv", "/nowhere/at/all.csv"), "cannot be written"),
        (("--entries", "--plot"), "sums are drawn"), (("--rebuild-log", "x", "--since", "1d"), "whole log"),
        (("--since", "2999-01-01"), "behind the end"),
    ],
)  # fmt: skip
def test_bad_use_is_told(vessel: Callable[..., Ran], arguments: tuple[str, ...], text: str) -> None:
    """Exit code 2, one message, nothing written."""
    ran = vessel("usage", *arguments)
    assert ran.code == 2
    assert text in ran.err
    assert "Traceback" not in ran.err


def test_an_empty_ledger_is_told(vessel: Callable[..., Ran]) -> None:
    """In words, and as an empty document."""
    assert "No call was charged" in vessel("usage").out
    assert vessel("usage", "--json").document["data"] == []
    assert vessel("usage", "--entries", "--json").out == ""


def test_a_cap_of_a_batch_is_given_and_shown(vessel: Callable[..., Ran], tmp_path: Path) -> None:
    """Exact, in the batch's document and for people; an amount that is none is refused before anything is sent."""
    line: Any = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
                 "body": {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}}  # fmt: skip
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps(line) + "\n", encoding="utf-8")
    made = vessel("batch", "submit", str(file), "--max-cost-usd", "0.05", "--json").document
    assert (made["vessel"]["max_cost_usd"], made["vessel"]["charged_or_reserved_usd"]) == (0.05, 0.0)
    assert "of 0.05 USD" in vessel("batch", "status", made["id"]).out
    for amount in ("0", "much", "1e-999999999"):
        ran = vessel("batch", "submit", str(file), "--max-cost-usd", amount)
        assert (ran.code, "max_cost_usd" in ran.err) == (2, True)
    assert len(vessel("batch", "list", "--json").documents) == 1
