"""Files and batches through the openai and groq SDKs, sync and async, raw and streamed."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import groq
import httpx
import openai
import pytest
import uvicorn

from tests.api.batch_app import create_app
from tests.waiting import wait_until
from vessel.batches.model import CHUNK, line_job_id
from vessel.client import GroqClient
from vessel.jobs.steps import Ending, Feed, Final, Held
from vessel.keyspace.names import gate_keys
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from vessel.settings import Settings

pytestmark = pytest.mark.redis("valkey")
MODEL = "openai/gpt-oss-20b"
ENDPOINT: Any = "/v1/chat/completions"


def line(number: int, **more: Any) -> dict[str, Any]:
    """Write a line."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"Question {number}"}]}
    return {"custom_id": f"r{number}", "method": "POST", "url": ENDPOINT, "body": body} | more


def jsonl(*lines: dict[str, Any]) -> bytes:
    """Write a file."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in lines)


class Server:
    """The app behind a real socket, and a worker that answers by hand."""

    def __init__(self, settings: Settings, store: Any) -> None:
        """Start it."""
        config = uvicorn.Config(create_app(settings), port=0, log_level="warning", lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        wait_until(lambda: self.server.started)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        self.client = GroqClient(settings=settings)
        self.redis = store

    def openai(self, **more: Any) -> openai.OpenAI:
        """Open the openai SDK on it."""
        return openai.OpenAI(api_key="k", base_url=f"{self.url}/v1", max_retries=0, **more)

    def groq(self) -> groq.Groq:
        """Open the groq SDK on it."""
        return groq.Groq(api_key="k", base_url=self.url, max_retries=0)

    def answer(self, batch_id: str, *, fail: frozenset[str] = frozenset(), most: int = 10**6) -> int:
        """End the jobs that the lines of a batch have by now; those in `fail` without a result."""
        door, run = self.client.door, self.client.runner.run
        done = 0
        for place in run(door.batches.open_lines(batch_id))[:most]:
            job_id = line_job_id(batch_id, place)
            job = self.client.job(job_id)
            run(door.store.feed(job, gate_keys(door.keys, "default", job.model, job.tenant), Feed(1)))
            held = run(door.store.claim(job_id, job.generation, job.queue, f"w/{place}"))
            assert isinstance(held, Held)
            failed = place in fail
            body = json.dumps(
                {
                    "id": "chatcmpl-1",
                    "choices": [{"message": {"content": job.request()["messages"][0]["content"]}}],
                    "x_groq": {"id": f"req_{place}"},
                }
            )
            usage = '{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"cached_tokens":1,"reasoning_tokens":0}'
            fields: dict[str, Any] = (
                {"reason": "bad_request", "message": "no"}
                if failed
                else {"response": body, "usage": usage, "cost": "0.0000015"}
            )
            final = Final(JobState.FAILED if failed else JobState.SUCCEEDED, fields, valid=not failed)
            done += run(door.store.finish(held, Ending(0, "", ""), final)).word == "finished"
        return done

    def close(self) -> None:
        """End it."""
        self.client.close()
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def server(settings: Settings, redis_client: redis.Redis) -> Iterator[Server]:
    """Start a server."""
    found = Server(settings, redis_client)
    yield found
    found.close()


def until(sdk: Any, batch_id: str, *statuses: str) -> Any:
    """Wait until a batch has one of these statuses."""
    return wait_until(lambda: (found := sdk.batches.retrieve(batch_id)) and found.status in statuses and found)


def test_the_openai_sdk_runs_a_batch_from_upload_to_results(server: Server) -> None:
    """Upload, create, watch the counts, read both documents while it runs and after, delete."""
    with server.openai() as sdk:
        data = jsonl(*(line(n) for n in range(1, 6)))
        file = sdk.files.create(file=("in.jsonl", data), purpose="batch")
        assert (file.bytes, file.purpose, file.filename, file.status) == (len(data), "batch", "in.jsonl", "processed")
        assert sdk.files.content(file.id).read() == data
        batch = sdk.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h",
                                   metadata={"team": "a"})  # fmt: skip
        assert (batch.status, batch.metadata) == ("validating", {"team": "a"})
        until(sdk, batch.id, "in_progress")
        wait_until(lambda: server.answer(batch.id, most=2) == 2)
        half = sdk.batches.retrieve(batch.id)
        assert half.request_counts is not None
        assert half.request_counts.model_dump() == {"total": 5, "completed": 2, "failed": 0}
        early = sdk.files.content(half.output_file_id or "").text
        assert sdk.files.retrieve(half.output_file_id or "").bytes == len(early.encode())
        for read_or_written in (file.id, half.output_file_id or ""):
            with pytest.raises(openai.ConflictError, match=batch.id):
                sdk.files.delete(read_or_written)
        server.answer(batch.id, fail=frozenset({"0:4"}))
        done = until(sdk, batch.id, "completed")
        assert done.request_counts.model_dump() == {"total": 5, "completed": 4, "failed": 1}
        assert done.usage.total_tokens == 20
        text = sdk.files.content(done.output_file_id).text
        assert text.startswith(early)
        rows = [json.loads(row) for row in text.splitlines()]
        assert {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in rows} == {
            f"r{n}": f"Question {n}" for n in range(1, 5)
        }
        assert all(row["response"]["request_id"] == row["response"]["body"]["x_groq"]["id"] for row in rows)
        bad = json.loads(sdk.files.content(done.error_file_id).text)
        assert (bad["custom_id"], bad["error"]["code"]) == ("r5", "bad_request")
        assert sdk.files.retrieve(done.output_file_id).bytes == len(text.encode())
        for gone in (file.id, done.output_file_id):
            assert sdk.files.delete(gone).deleted
            with pytest.raises(openai.NotFoundError):
                sdk.files.retrieve(gone)


def test_the_groq_sdk_does_the_same(server: Server) -> None:
    """Its paths are below /openai/v1; raw and streaming responses work."""
    with server.groq() as sdk:
        file = sdk.files.create(file=("in.jsonl", jsonl(line(1))), purpose="batch")
        batch = sdk.batches.create(input_file_id=file.id or "", endpoint=ENDPOINT, completion_window="7d")
        until(sdk, batch.id, "in_progress")
        wait_until(lambda: server.answer(batch.id))
        done = until(sdk, batch.id, "completed")
        assert json.loads(sdk.files.content(done.output_file_id).read())["custom_id"] == "r1"
        assert sdk.files.info(file.id or "").filename == "in.jsonl"
        assert {row.id for row in sdk.files.list().data} == {file.id, done.output_file_id}
        assert [row.id for row in sdk.batches.list().data] == [batch.id]
        raw = sdk.batches.with_raw_response.retrieve(batch.id)
        assert raw.parse().id == batch.id
        with sdk.files.with_streaming_response.content(done.output_file_id) as streamed:
            assert b"r1" in b"".join(streamed.iter_bytes())
        with pytest.raises(groq.ConflictError):
            sdk.batches.cancel(batch.id)
        assert sdk.files.delete(file.id or "").deleted


def test_both_async_sdks_work(server: Server) -> None:
    """The async clients upload, create, list and cancel."""

    async def run() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1", max_retries=0) as sdk:
            file = await sdk.files.create(file=("in.jsonl", jsonl(line(1), line(2))), purpose="batch")
            batch = await sdk.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
            assert (await sdk.batches.cancel(batch.id)).status in {"cancelled", "cancelling"}
            assert [row.id async for row in sdk.batches.list(limit=1)] == [batch.id]
        async with groq.AsyncGroq(api_key="k", base_url=server.url, max_retries=0) as other:
            assert (await other.batches.retrieve(batch.id)).id == batch.id
            assert (await (await other.files.content(file.id)).read()) == jsonl(line(1), line(2))

    asyncio.run(run())


def test_pages_are_walked_by_the_sdk_without_gaps_or_repeats(server: Server) -> None:
    """The SDK's own pager sees every object once, in the order asked for."""
    with server.openai() as sdk:
        files = [sdk.files.create(file=("f", jsonl(line(n))), purpose="batch").id for n in range(7)]
        assert [f.id for f in sdk.files.list(limit=2, order="asc")] == files
        assert [f.id for f in sdk.files.list(limit=3)] == files[::-1]
        ids = [sdk.batches.create(input_file_id=f, endpoint=ENDPOINT, completion_window="24h").id for f in files[:5]]
        assert [b.id for b in sdk.batches.list(limit=2)] == ids[::-1]
        assert [f.id for f in sdk.files.list(purpose="batch_output")] == []
        some: Any = {"id": [ids[0], ids[3]]}
        with server.groq() as other:
            assert [b.id for b in other.batches.list(extra_query=some).data] == [ids[0], ids[3]]
        repeated = httpx.get(f"{server.url}/v1/batches", params=some).json()["data"]
        assert [b["id"] for b in repeated] == [ids[0], ids[3]]
        with pytest.raises(openai.BadRequestError):
            sdk.batches.list(after="batch_none")
        with pytest.raises(openai.NotFoundError):
            sdk.batches.list(after=f"batch_{'0' * 32}")


def test_a_batch_s_request_is_read_as_strictly_as_all_others(server: Server) -> None:
    """By the one reader of JSON bodies: no depth that breaks what reads it next, nothing compressed, no name twice."""
    sent: list[tuple[bytes, dict[str, str], int, str]] = [
        (b'{"metadata":' + b"[" * 500 + b"]" * 500 + b"}", {}, 400, "levels deep"),
        (b'{"input_file_id":"a","input_file_id":"b"}', {}, 400, "twice"),
        (b"{}", {"content-encoding": "gzip"}, 415, "compressed"),
        (b"{}", {"content-type": "text/plain"}, 415, "application/json"),
        (b'{"metadata":"' + b"x" * (64 << 10) + b'"}', {}, 400, "larger than a batch's request"),
    ]
    for content, more, status, told in sent:
        headers = {"content-type": "application/json"} | more
        answer = httpx.post(f"{server.url}/v1/batches", content=content, headers=headers)
        assert (answer.status_code, told in answer.json()["error"]["message"]) == (status, True), answer.text


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_files_may_be_deleted_while_the_pager_walks_them(server: Server, order: Any) -> None:
    """The cursor of the next page is then a file that has gone."""
    with server.openai() as sdk:
        files = {sdk.files.create(file=("f", jsonl(line(n))), purpose="batch").id for n in range(7)}
        assert {sdk.files.delete(f.id).id for f in sdk.files.list(limit=2, order=order)} == files
        assert sdk.files.list().data == []


def test_a_faulty_file_fails_the_batch_with_a_report(server: Server) -> None:
    """The SDK's type holds the report, line by line."""
    with server.openai() as sdk:
        bad = jsonl(line(1), line(1), line(3, method="GET")) + b"{oops\n"
        file = sdk.files.create(file=("in.jsonl", bad), purpose="batch")
        batch = sdk.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
        failed = until(sdk, batch.id, "failed")
        assert [(e.line, e.code) for e in failed.errors.data] == [
            (2, "duplicate_custom_id"), (3, "invalid_method"), (4, "invalid_json_line"),
        ]  # fmt: skip
        assert failed.failed_at


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"completion_window": "23h"}, "completion_window"),
        ({"completion_window": "8d"}, "completion_window"),
        ({"completion_window": 24}, "completion_window"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"input_file_id": None}, "input_file_id"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": ["k"]}, "metadata"),
        ({"metdata": {}}, "metdata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
    ],
)
def test_a_batch_request_that_is_not_valid_is_a_400(server: Server, asked: dict[str, Any], param: str) -> None:
    """The error names the parameter."""
    with server.openai() as sdk:
        file = sdk.files.create(file=("in.jsonl", jsonl(line(1))), purpose="batch")
        body = {"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h"} | asked
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.post("/batches", cast_to=object, body=body)
        assert refused.value.param == param


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [(b"", 400, "empty_file"), (b"\n \n", 400, "empty_file"), (b"{}\n" * 50_001, 400, "too_many_requests_in_file")],
)
def test_a_file_that_cannot_be_a_batch_is_refused_at_upload(
    server: Server, content: bytes, status: int, code: str
) -> None:
    """Nothing of it is kept."""
    with httpx.Client(base_url=server.url) as web:
        answer = web.post("/v1/files", files={"file": ("f", content)}, data={"purpose": "batch"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert [key for key in server.redis.keys("*") if b":file:" in key] == []


def test_a_form_that_is_none_is_a_4xx(server: Server) -> None:
    """Whatever is sent, it is the sender's fault and named as such."""
    good = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n{}\r\n'
    kind = {"content-type": "multipart/form-data; boundary=b"}
    with httpx.Client(base_url=server.url) as web:
        for content, headers, status in [
            (b"x", {"content-type": "text/plain"}, 415),
            (b"x", {"content-type": "multipart/form-data"}, 415),
            (b"x", kind, 400),
            (good, kind, 400),
            (good + b"--b--\r\n", kind, 400),  # no purpose
            (b"--b\r\n\r\nx\r\n--b--\r\n", kind, 400),
            (good + good + b"--b--\r\n", kind, 400),
            (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n' + good + b"--b--\r\n",
             kind, 400),
            (b'--b\r\nContent-Disposition: form-data; name="p"\r\n\r\n' + b"x" * 9000 + b"\r\n--b--\r\n", kind, 400),
        ]:  # fmt: skip
            answer = web.post("/v1/files", content=content, headers=headers)
            assert answer.status_code == status, (content[:60], answer.text)
        assert web.post("/v1/batches", content=b"{", headers={"content-type": "application/json"}).status_code == 400
        assert web.post("/v1/batches", content=b"{}").status_code == 415
        for path in ("/v1/files/..%2f..%2fetc", "/v1/files/file-%00", "/v1/batches/batch_x", "/v1/batches/*"):
            assert web.get(path).status_code == 404
        for query in ("limit=0", "limit=x", "limit=101", "after=%00"):
            assert web.get(f"/v1/batches?{query}").status_code == 400


def test_a_file_larger_than_a_chunk_comes_back_as_it_went(server: Server) -> None:
    """Bytes are kept in chunks; lines may lie across two of them."""
    lines = [line(n) for n in range(1, 200)]
    for row in lines:
        row["body"]["messages"][0]["content"] += " long" * 2500
    data = jsonl(*lines)
    assert len(data) > 2 * CHUNK
    with server.openai() as sdk:
        file = sdk.files.create(file=("in.jsonl", data), purpose="batch")
        assert sdk.files.content(file.id).read() == data
        batch = sdk.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
        until(sdk, batch.id, "in_progress")
        wait_until(lambda: server.client.runner.run(server.client.door.batches.open_lines(batch.id)))
        server.answer(batch.id)
        wait_until(lambda: server.answer(batch.id) == 0)
        done = until(sdk, batch.id, "completed")
        rows = [json.loads(row) for row in sdk.files.content(done.output_file_id).text.splitlines()]
        asked = {row["custom_id"]: row["body"]["messages"][0]["content"] for row in lines}
        assert {r["custom_id"]: r["response"]["body"]["choices"][0]["message"]["content"] for r in rows} == asked


def test_a_repeated_post_finds_what_the_first_one_made(server: Server) -> None:
    """By its key, or because the SDK says that it repeats itself."""
    with httpx.Client(base_url=server.url) as web:
        form: Any = {"files": {"file": ("f", jsonl(line(1)))}, "data": {"purpose": "batch"}}
        first = web.post("/v1/files", headers={"idempotency-key": "k"}, **form).json()
        assert web.post("/v1/files", headers={"idempotency-key": "k"}, **form).json() == first
        body = {"input_file_id": first["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
        made = web.post("/v1/batches", json=body, headers={"idempotency-key": "k"}).json()
        again = web.post("/v1/batches", json=body, headers={"idempotency-key": "k"})
        assert again.json()["id"] == made["id"]
        other = body | {"completion_window": "48h"}
        assert web.post("/v1/batches", json=other, headers={"idempotency-key": "k"}).status_code == 409
        repeat = web.post("/v1/batches", json=body, headers={"x-stainless-retry-count": "1"}).json()
        assert repeat["id"] == made["id"]
        assert web.post("/v1/batches", json=body, headers={"idempotency-key": ""}).status_code == 400


def test_another_tenants_ids_are_not_found(server: Server, redis_client: redis.Redis) -> None:
    """What belongs to another tenant looks as if it were not there."""
    with server.openai() as sdk:
        file = sdk.files.create(file=("in.jsonl", jsonl(line(1))), purpose="batch")
        batch = sdk.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
        keys = server.client.door.keys
        redis_client.hset(keys.file(file.id), "tenant", "other")
        redis_client.hset(keys.batch(batch.id), "tenant", "other")
        for ask in (
            lambda: sdk.files.retrieve(file.id),
            lambda: sdk.files.content(file.id),
            lambda: sdk.files.delete(file.id),
            lambda: sdk.batches.retrieve(batch.id),
            lambda: sdk.batches.cancel(batch.id),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()
