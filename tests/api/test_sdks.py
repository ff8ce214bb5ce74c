"""The users' own code: both SDKs, sync and async, raw and streaming variants, against the server as it runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import groq
import openai
import pytest

from tests.api.serving import GREETING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.api.serving import Served

SDKS = ("openai", "groq")


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest, served: Served) -> Iterator[Any]:
    """Open each SDK."""
    with getattr(served, request.param)() as client:
        yield client


@pytest.fixture(params=SDKS)
def async_sdk(request: pytest.FixtureRequest, served: Served) -> Any:
    """Open the async side of each SDK."""
    if request.param == "openai":
        return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    return groq.AsyncGroq(base_url=served.url, api_key="none", max_retries=0)


def test_a_chat_completion_has_groqs_shape_and_names_its_job(sdk: Any, served: Served) -> None:
    """The answer is Groq's own, with `x_groq.id`; headers tell the job, the model and the attempts."""
    raw = sdk.chat.completions.with_raw_response.create(model="power", messages=GREETING, temperature=0.5)
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.model == raw.headers["x-vessel-model"] == "openai/gpt-oss-120b"
    assert raw.headers["x-vessel-attempts"] == "1"
    assert answer.to_dict()["x_groq"]["id"].startswith("req_")
    job = served.job(raw.headers["x-vessel-job-id"])
    assert (job["state"], job["tier"], job["priority"]) == ("succeeded", "power", "interactive")


@pytest.mark.parametrize("model", ["auto", "ultra_fast", "openai/gpt-oss-20b", "llama-3.3-70b-versatile"])
def test_a_model_is_named_by_id_by_tier_or_auto(sdk: Any, model: str) -> None:
    """A retired id is served by its successor, and the answer says by which."""
    assert sdk.chat.completions.create(model=model, messages=GREETING).model.startswith("openai/gpt-oss-")


def test_every_field_is_passed_on(sdk: Any, served: Served) -> None:
    """What Vessel's own model does not know is stored and sent as it came; one that Groq refuses is a 400."""
    more = {"service_tier": "auto", "search_settings": {"country": "romania", "include_domains": ["a.example"]}}
    raw = sdk.chat.completions.with_raw_response.create(model="auto", messages=GREETING, extra_body=more)
    with served.inside() as (door, runner):
        job = runner.run(door.store.read(raw.headers["x-vessel-job-id"]))
    assert job is not None
    assert {name: job.request()[name] for name in more} == more
    errors = openai if isinstance(sdk, openai.OpenAI) else groq
    with pytest.raises(errors.BadRequestError) as refused:
        sdk.chat.completions.create(model="auto", messages=GREETING, extra_body={"a_field_of_tomorrow": 1})
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.response.json()["error"]["code"] == "bad_request"


def test_the_policy_travels_beside_the_body(sdk: Any, served: Served) -> None:
    """A `vessel` object says how a job is served and is not sent to Groq."""
    policy = {"tier": "power", "tags": {"team": "docs"}, "max_attempts": 2}
    raw = sdk.chat.completions.with_raw_response.create(model="auto", messages=GREETING, extra_body={"vessel": policy})
    job = served.job(raw.headers["x-vessel-job-id"])
    assert job["tier"] == "power"
    assert job["policy"]["tags"] == {"team": "docs"}


def test_the_streaming_response_variant_reads_the_whole_answer(sdk: Any) -> None:
    """`with_streaming_response` reads a body that is not streamed, too."""
    with sdk.chat.completions.with_streaming_response.create(model="auto", messages=GREETING) as response:
        assert response.status_code == 200
        assert b'"chat.completion"' in response.read()


def test_a_stream_comes_in_groqs_chunks(sdk: Any) -> None:
    """Role and `x_groq.id` first, the text in pieces, finish_reason and usage last; the headers name the job."""
    with sdk.chat.completions.with_streaming_response.create(model="auto", messages=GREETING, stream=True) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["x-vessel-job-id"].startswith("job_")
        assert raw.headers["x-vessel-attempts"] == "1"
        assert b"data: [DONE]" in raw.read()
    chunks = list(sdk.chat.completions.create(model="power", messages=GREETING, stream=True))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.model for chunk in chunks} == {"openai/gpt-oss-120b"}
    assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks)) > 10
    assert len(chunks) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].to_dict()["x_groq"]["id"].startswith("req_")
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].to_dict()["x_groq"]["usage"]["completion_tokens"] > 0


def test_a_stream_that_cannot_begin_has_a_status(sdk: Any) -> None:
    """What is known before the first token is no event in a 200."""
    errors = openai if isinstance(sdk, openai.OpenAI) else groq
    with pytest.raises(errors.BadRequestError):
        sdk.chat.completions.create(model="auto", messages=GREETING, stream=True, extra_body={"a_field_of_tomorrow": 1})
    with pytest.raises(errors.NotFoundError):
        sdk.chat.completions.create(model="gpt-9", messages=GREETING, stream=True)


def test_a_stream_is_read_again_from_an_event_on(served: Served) -> None:
    """The same key and body are the same job; what was read is not told again."""
    body = {"model": "auto", "messages": GREETING, "stream": True}
    headers = {"Idempotency-Key": "read-on"}
    with served.http() as http:
        whole = http.post("/v1/chat/completions", json=body, headers=headers)
        ids = [line.removeprefix("id: ") for line in whole.text.splitlines() if line.startswith("id: ")]
        rest = http.post("/v1/chat/completions", json=body, headers=headers | {"Last-Event-ID": ids[0]})
    assert whole.headers["x-vessel-job-id"] == rest.headers["x-vessel-job-id"]
    assert rest.text.rstrip().endswith("data: [DONE]")
    assert [line.removeprefix("id: ") for line in rest.text.splitlines() if line.startswith("id: ")] == ids[1:]


def test_models_are_listed_and_retrieved_by_ids_with_a_slash(sdk: Any) -> None:
    """Served models, tiers and `auto`; the SDKs send the slash as %2F."""
    ids = [model.id for model in sdk.models.list().data]
    assert {"openai/gpt-oss-20b", "power", "auto"} <= set(ids)
    assert "llama-3.3-70b-versatile" not in ids
    found = sdk.models.retrieve("openai/gpt-oss-20b")
    assert (found.id, found.object, found.owned_by) == ("openai/gpt-oss-20b", "model", "openai")
    assert sdk.models.with_raw_response.retrieve("auto").parse().id == "auto"


def test_faults_are_the_sdks_own_exceptions(sdk: Any) -> None:
    """A wrong value is a BadRequestError naming its parameter, an unknown model a NotFoundError."""
    errors = openai if isinstance(sdk, openai.OpenAI) else groq
    with pytest.raises(errors.BadRequestError) as bad:
        sdk.chat.completions.create(model="auto", messages=GREETING, temperature=3)
    assert bad.value.response.json()["error"]["param"] == "temperature"
    with pytest.raises(errors.NotFoundError) as unknown:
        sdk.chat.completions.create(model="gpt-oss", messages=GREETING)
    assert unknown.value.response.json()["error"]["code"] == "model_not_found"
    with pytest.raises(errors.NotFoundError):
        sdk.models.retrieve("none/such")
    key = {"Idempotency-Key": f"conflict-{errors.__name__}"}
    sdk.chat.completions.create(model="auto", messages=GREETING, extra_headers=key)
    with pytest.raises(errors.ConflictError):
        sdk.chat.completions.create(model="power", messages=GREETING, extra_headers=key)


def test_the_async_sdks_do_the_same(async_sdk: Any) -> None:
    """Twenty at once, models, and an error."""
    errors = openai if isinstance(async_sdk, openai.AsyncOpenAI) else groq

    async def use() -> None:
        async with async_sdk as client:
            asked = [client.chat.completions.create(model="auto", messages=GREETING) for _ in range(20)]
            answers = await asyncio.gather(*asked)
            assert len({answer.id for answer in answers}) == 20
            assert (await client.models.retrieve("power")).owned_by == "vessel"
            stream = await client.chat.completions.create(model="auto", messages=GREETING, stream=True)
            assert len([chunk async for chunk in stream]) > 3
            raw = await client.chat.completions.with_raw_response.create(model="auto", messages=GREETING)
            assert raw.headers["x-vessel-job-id"].startswith("job_")
            with pytest.raises(errors.BadRequestError):
                await client.chat.completions.create(model="auto", messages=[])

    asyncio.run(use())
