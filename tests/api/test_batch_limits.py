"""What a batch's file may hold: each limit is told by line through both SDKs, or refuses the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.api.test_files_and_batches import ENDPOINT, Server, jsonl, line, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from vessel.settings import Settings

pytestmark = pytest.mark.redis("valkey")


@pytest.fixture
def server(settings: Settings, redis_client: redis.Redis) -> Iterator[Server]:
    """Start a server."""
    found = Server(settings, redis_client)
    yield found
    found.close()


def nested(levels: int) -> Any:
    """Build what has so many levels of arrays."""
    found: Any = []
    for _ in range(levels - 1):
        found = [found]
    return found


@pytest.mark.parametrize("kind", ["openai", "groq"])
def test_the_report_names_each_limit_that_a_line_passes(
    server: Server, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Length, depth and form, with the line's number, as both SDKs' types have it; a file may hold 64 levels."""
    monkeypatch.setattr("vessel.batches.lines.LONGEST_LINE", 4000)
    deep = line(2)["body"] | {"tools": nested(63)}  # with the line and its body 65
    rows = [
        line(1, body=line(1)["body"] | {"user": "x" * 4000}), line(2, body=deep), line(3), line(4, body=None),
        line(5, url="/v1/embeddings"), line(6) | {"custom_id": 6}, line(7, body=line(7)["body"] | {"model": "gpt-9"}),
        line(8, body=line(8)["body"] | {"temperature": 9}),
    ]  # fmt: skip
    assert len(json.dumps(rows[1])) < 4000
    sdk: Any
    with server.openai() if kind == "openai" else server.groq() as sdk:
        file = sdk.files.create(file=("in.jsonl", jsonl(*rows)), purpose="batch")
        made = sdk.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
        errors = until(sdk, made.id, "failed").errors
    assert errors.object == "list"
    assert [(e.line, e.code, e.param) for e in errors.data] == [
        (1, "line_too_long", None), (2, "nested_too_deep", None), (4, "invalid_body", "body"),
        (5, "invalid_url", "url"), (6, "invalid_custom_id", "custom_id"), (7, "model_not_found", "body.model"),
        (8, "invalid_request", "body.temperature"),
    ]  # fmt: skip
    assert all(e.message and not e.message.isspace() for e in errors.data)


def test_a_file_above_the_size_is_a_413_and_nothing_of_it_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text names the limit."""
    monkeypatch.setattr("vessel.batches.files.MOST_BYTES", 3 << 20)
    data = (b" " * (1 << 20) + b"\n") * 4
    with server.openai() as sdk, pytest.raises(openai.APIStatusError, match="larger than 3 MiB") as refused:
        sdk.files.create(file=("in.jsonl", data), purpose="batch")
    assert (refused.value.status_code, refused.value.code) == (413, "file_too_large")
    assert [key for key in server.redis.keys("*") if b":file:" in key] == []
