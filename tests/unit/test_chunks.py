"""What SDKs read of a stream: chunk documents in Groq's shape, events with ids, comments, [DONE] and errors."""

from __future__ import annotations

import asyncio
import importlib
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from groq.types.chat import ChatCompletionChunk

from vessel.api.chunks import MEDIA_TYPE, after_first, error_event, sse, stream_response, wants_usage
from vessel.errors import JobFailed, JobNotFound, VesselError
from vessel.jobs.record import read_job
from vessel.watch.tokens import Ended, TokenEvent, Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

HEAD = {"id": "chatcmpl-1", "created": 7, "model": "openai/gpt-oss-20b", "system_fingerprint": "fp_1",
        "x_groq": {"id": "req_1"}}  # fmt: skip
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def ended(message: dict[str, Any], *, streamed: bool = True, finish: str = "stop") -> Ended:
    """End a job with this message."""
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
    answer = {"id": "chatcmpl-1", "created": 7, "model": "m", "choices": [choice], "usage": USAGE}
    record = {"id": "job_1", "state": "succeeded", "gen": "1", "tenant": "t", "priority": "normal", "tier": "power",
              "model": "m", "hops": '[["m","power",""]]', "policy": "{}", "reasons": "[]",
              "response": json.dumps(answer | {"x_groq": {"id": "req_1"}})}  # fmt: skip
    return Ended(read_job({name: value.encode() for name, value in record.items()}), streamed)


def tokens(*texts: str, head: bool = False, number: int = 1) -> Tokens:
    """Make tokens that came together."""
    return Tokens(f"1-{number}", tuple({"delta": {"content": text}} for text in texts), HEAD if head else None)


def body_of(events: Iterable[TokenEvent | VesselError], **options: Any) -> bytes:
    """Read the whole body of a streamed answer."""

    async def told() -> AsyncGenerator[TokenEvent]:
        for event in events:
            if isinstance(event, VesselError):
                raise event
            yield event

    async def read() -> bytes:
        return b"".join([piece async for piece in stream_response(told(), **options)])

    return asyncio.run(read())


def documents(body: bytes) -> list[Any]:
    """Read the documents of a body, [DONE] left out."""
    lines = [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_an_answer_is_told_in_groqs_shape() -> None:
    """Role and request id first, then the deltas, at last finish_reason and usage; all in the same name."""
    body = body_of([tokens("Hel", "lo", head=True), tokens("!", number=2), ended({"content": "Hello!"})])
    found = documents(body)

    assert [one["choices"][0]["delta"].get("content") for one in found] == ["", "Hel", "lo", "!", None]
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert found[0]["x_groq"] == {"id": "req_1"}
    assert {(one["id"], one["object"], one["created"]) for one in found} == {("chatcmpl-1", "chat.completion.chunk", 7)}
    assert [one["choices"][0]["finish_reason"] for one in found] == [None, None, None, None, "stop"]
    assert found[-1]["x_groq"] == {"id": "req_1", "usage": USAGE}
    assert body.endswith(b"data: [DONE]\n\n")
    for one in found:
        ChatCompletionChunk.model_validate(one, strict=True)


def test_usage_at_the_top_comes_only_where_it_was_asked_for() -> None:
    """As with `stream_options.include_usage`: one more chunk, without choices."""
    events: list[TokenEvent] = [tokens("a", head=True), ended({"content": "a"})]
    assert all("usage" not in one for one in documents(body_of(events)))
    last = documents(body_of(events, include_usage=True))[-1]
    assert (last["choices"], last["usage"]) == ([], USAGE)
    assert wants_usage({"stream_options": {"include_usage": True}})
    assert not any(wants_usage({"stream_options": given}) for given in (None, {}, {"include_usage": 1}, "yes"))


def test_an_answer_that_came_as_a_whole_is_told_as_one() -> None:
    """The failover vessel and JSON schemas do not stream; clients see a stream all the same."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"reasoning": "hm", "content": "Hello!", "tool_calls": [call]}
    found = documents(body_of([ended(message, streamed=False, finish="tool_calls")]))

    assert [one["choices"][0]["delta"] for one in found] == [
        {"role": "assistant", "content": ""},
        {"reasoning": "hm"},
        {"content": "Hello!"},
        {"tool_calls": [{"index": 0} | call]},
        {},
    ]
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_events_that_came_together_share_an_id_at_their_end() -> None:
    """Whoever goes on after an id has read all of them; the role, which the stream does not hold, has no id."""
    body = body_of([tokens("a", "b", head=True), ended({"content": "ab"})])
    blocks = body.decode().split("\n\n")
    assert [block.startswith("id: 1-1\n") for block in blocks[:3]] == [False, False, True]


def test_one_that_reads_on_gets_no_second_role() -> None:
    """A stream that was cut off goes on with its deltas."""
    found = documents(body_of([tokens("b", number=2), ended({"content": "ab"})], begun=True))
    assert [one["choices"][0]["delta"] for one in found] == [{"content": "b"}, {}]


def test_silence_is_filled_with_comments() -> None:
    """A comment is no event, and has no empty line of its own, at which SDKs would break after an id."""
    body = body_of([None, tokens("a", head=True), ended({"content": "a"})])
    assert body.startswith(b": keep-alive\n")


def test_a_failure_is_an_error_event() -> None:
    """It ends the stream with the job's reason, and without [DONE]."""
    failed = JobFailed("job_1", "failed", "stream_broken", "It broke.")
    body = body_of([tokens("a", head=True), failed])
    block = body.decode().split("\n\n")[-2]
    error = json.loads(block.split("data: ")[1])["error"]

    assert block.startswith("event: error\n")
    assert (error["code"], error["type"], error["param"]) == ("stream_broken", "server_error", None)
    assert "It broke." in error["message"]
    assert b"[DONE]" not in body
    assert b'"code":"job_not_found"' in error_event(JobNotFound())


def test_text_of_any_kind_survives() -> None:
    """Line breaks cannot end an event, and half a surrogate pair is written as an escape."""
    assert sse({"a": "x\n\ny\u2028"}).count(b"\n") == 2
    assert json.loads(sse({"a": "\ud83d"}).decode().removeprefix("data: ")) == {"a": "\ud83d"}


def answering(body: bytes) -> Any:
    """Answer every request with this stream."""
    return lambda _: httpx.Response(200, content=body, headers={"content-type": MEDIA_TYPE})


@pytest.fixture(params=["groq", "openai"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Give a function that reads a body through an SDK, and the SDK."""
    sdk = importlib.import_module(request.param)

    def read(body: bytes) -> list[Any]:
        http = httpx.Client(transport=httpx.MockTransport(answering(body)))
        kind = sdk.Groq if request.param == "groq" else sdk.OpenAI
        with kind(api_key="k", base_url="http://vessel/v1", http_client=http, max_retries=0) as client:
            messages = [{"role": "user", "content": "hi"}]
            return list(client.chat.completions.create(model="m", messages=messages, stream=True))

    return read, sdk


def test_the_sdks_read_an_answer(ask: Any) -> None:
    """Comments and ids do not disturb them; text and finish_reason are there."""
    read, _ = ask
    chunks = read(
        body_of([None, tokens("Hel", "lo", head=True), None, ended({"content": "Hello"})], include_usage=True)
    )
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == "Hello"
    assert choices[-1].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens == 5


def test_the_sdks_raise_for_a_broken_stream(ask: Any) -> None:
    """As their own APIError, with the reason in its body."""
    read, sdk = ask
    failed = JobFailed("job_1", "failed", "stream_broken", "It broke.")
    with pytest.raises(sdk.APIError, match=r"It broke\.") as raised:
        read(body_of([tokens("a", head=True), failed]))
    assert raised.value.body["code"] == "stream_broken"


async def told_later(go: asyncio.Event, *events: TokenEvent | VesselError) -> AsyncGenerator[TokenEvent]:
    """Give events once they are let go."""
    await go.wait()
    for event in events:
        if isinstance(event, VesselError):
            raise event
        yield event


async def test_a_failure_before_the_first_event_is_raised_before_the_response() -> None:
    """It has a status of its own then."""
    go = asyncio.Event()
    go.set()
    with pytest.raises(JobNotFound):
        await after_first(told_later(go, JobNotFound()), 20)


async def test_a_response_begins_without_an_event_when_patience_ends() -> None:
    """Nothing is lost by that: the first event comes when it comes."""
    go = asyncio.Event()
    events = await after_first(told_later(go, tokens("a"), tokens("b")), 0)
    go.set()
    assert [event.text async for event in events if isinstance(event, Tokens)] == ["a", "b"]


async def test_a_response_that_is_given_up_ends_its_reading() -> None:
    """Closing reaches the reader also while nothing has come yet."""
    go = asyncio.Event()
    inner = told_later(go, tokens("a"))
    response = stream_response(await after_first(inner, 0))
    assert await anext(response) == b": keep-alive\n"
    await response.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(inner)
