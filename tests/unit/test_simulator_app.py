"""The simulated API as a whole, on a clock of the test's: worlds, keys, headers, limits, streams."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.simulated import MODEL, START, Local
from vessel.simulator import expected_text
from vessel.simulator.models import RETIRED, models_of

GREETING = [{"role": "user", "content": "hello"}]
REQUEST_ID = re.compile(r"req_[0-9a-hjkmnp-tv-z]{26}")
LIMIT_HEADERS = {
    f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")
}


def test_an_answer_has_all_that_groqs_has() -> None:
    """Fields, ids and usage as in a real answer; nothing is there that is not in one."""
    answer = Local().chat()
    body = answer.json
    assert set(body) == {
        "id", "object", "created", "model", "choices", "usage", "usage_breakdown", "system_fingerprint", "x_groq",
        "service_tier",
    }  # fmt: skip
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", body["id"])
    assert (body["object"], body["created"], body["service_tier"]) == ("chat.completion", int(START), "on_demand")
    assert set(body["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}
    assert body["choices"][0]["message"] == {"role": "assistant", "content": expected_text(GREETING)}
    assert set(body["usage"]) == {
        "queue_time", "prompt_tokens", "prompt_time", "completion_tokens", "completion_time", "total_tokens",
        "total_time",
    }  # fmt: skip
    assert REQUEST_ID.fullmatch(body["x_groq"]["id"])
    assert answer.headers["x-request-id"] == body["x_groq"]["id"]
    assert answer.content.endswith(b"}\n")


@pytest.mark.parametrize(
    ("body", "status"), [({}, 200), ({"n": 2}, 400), ({"model": "nothing"}, 404), ({"max_tokens": 60_000}, 413)]
)
def test_limits_stand_in_the_headers_of_every_chat(body: dict[str, Any], status: int) -> None:
    """Refusals carry them too; only a 429 carries retry-after."""
    answer = Local(limits={"*": {"tpm": 30_000}}).chat(**body)
    assert answer.status == status
    assert set(answer.headers) > LIMIT_HEADERS
    assert "retry-after" not in answer.headers


def test_headers_show_what_is_left_after_the_refund() -> None:
    """An answer's headers count what it used, not what it had reserved."""
    sim = Local(plan="free")
    answer = sim.chat(max_completion_tokens=4000)
    used = answer.json["usage"]["total_tokens"]
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(8000 - used)
    assert answer.headers["x-ratelimit-remaining-requests"] == "999"
    assert answer.headers["x-ratelimit-reset-requests"] == "1m26.4s"
    assert answer.headers["x-ratelimit-reset-tokens"] == f"{used * 7.5:g}ms"


def test_a_429_says_when_and_keeps_its_word() -> None:
    """The request refused is admitted after the wait of the text, and not a moment before."""
    sim = Local(limits={MODEL: {"tpm": 6000}})
    sim.sim.gate(sim.sim.config.org, MODEL).buckets["tpm"].add(5034)
    refused = sim.chat("x" * 4 * 439, max_completion_tokens=1000)
    assert (refused.status, refused.error["type"], refused.error["code"]) == (429, "tokens", "rate_limit_exceeded")
    assert "Limit 6000, Used 5034, Requested 1443. Please try again in 4.77s." in refused.error["message"]
    assert (
        f"model `{MODEL}` in organization `{sim.sim.config.org}` service tier `on_demand`" in refused.error["message"]
    )
    assert refused.headers["retry-after"] == "5"
    sim.clock.at += 4.7
    assert sim.chat("x" * 4 * 439, max_completion_tokens=1000).status == 429
    sim.clock.at += 0.07
    assert sim.chat("x" * 4 * 439, max_completion_tokens=1000).status == 200


def test_a_request_above_the_limit_is_413() -> None:
    """No wait is offered, and nothing is charged."""
    sim = Local(plan="free")
    answer = sim.chat(max_completion_tokens=32_979)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (413, "tokens", "rate_limit_exceeded")
    assert "Limit 8000, Requested 32985, please reduce your message size" in answer.error["message"]
    assert "retry-after" not in answer.headers
    assert sim.stats()["refused_by"] == {"tpm": 1}


def test_without_a_bound_1024_tokens_are_reserved() -> None:
    """An answer without max_completion_tokens reserves the documented default."""
    sim = Local(limits={MODEL: {"tpm": 1029}})
    assert "Requested 1030" in sim.chat().error["message"]
    sim.ask("POST", "/_sim/limits", {"model": MODEL, "tpm": 1030})
    assert sim.chat().status == 200


def test_limits_are_by_model_and_by_organisation() -> None:
    """Two keys of one organisation share; another model or organisation has its own."""
    keys = ("org_a:gsk_1", "org_a:gsk_2", "org_b:gsk_3")
    sim = Local(keys=keys, limits={"*": {"rpm": 1}})
    tries = [("gsk_1", MODEL), ("gsk_2", MODEL), ("gsk_3", MODEL), ("gsk_2", "openai/gpt-oss-120b")]
    answers = [sim.chat(model=model, headers={"authorization": f"Bearer {key}"}) for key, model in tries]
    assert [answer.status for answer in answers] == [200, 429, 200, 200]
    assert "in organization `org_a`" in answers[1].error["message"]


def test_flex_has_ten_times_the_limits_of_its_own() -> None:
    """Flex does not share on_demand's buckets, and is for paying organisations."""
    sim = Local(limits={MODEL: {"rpm": 1}})
    tiers = ["on_demand", "on_demand", "flex", "flex"]
    assert [sim.chat(service_tier=tier).status for tier in tiers] == [200, 429, 200, 200]
    assert Local(plan="free").chat(service_tier="flex").status == 400


def test_the_cache_gives_tokens_back() -> None:
    """A long prompt seen before is cached in blocks, billed so, and refunded; short ones never are."""
    sim = Local()
    system = {"role": "system", "content": "x" * 8000}
    first = sim.chat(messages=[system, *GREETING])
    again = sim.chat(messages=[system, {"role": "user", "content": "other"}])
    assert "prompt_tokens_details" not in first.json["usage"]
    assert again.json["usage"]["prompt_tokens_details"] == {"cached_tokens": 1920}
    used = first.json["usage"]["total_tokens"] + again.json["usage"]["total_tokens"] - 1920
    assert int(again.headers["x-ratelimit-remaining-tokens"]) == 250_000 - used
    assert sim.stats()["tokens"]["cached"] == 1920
    sim.clock.at += 7201
    assert "prompt_tokens_details" not in sim.chat(messages=[system, *GREETING]).json["usage"]
    assert "prompt_tokens_details" not in sim.chat("hello").json["usage"]


@pytest.mark.parametrize("authorization", ["", "gsk_test", "Bearer ", "Bearer nothing", "Basic gsk_test"])
def test_a_bad_key_is_401(authorization: str) -> None:
    """The body of a seen refusal, 96 bytes long; no organisation, so no limits in its headers."""
    sim = Local()
    for answer in (
        sim.chat(headers={"authorization": authorization}),
        sim.ask("GET", "/openai/v1/models", headers={"authorization": authorization}),
    ):
        assert (answer.status, len(answer.content)) == (401, 96)
        assert answer.error == {
            "message": "Invalid API Key",
            "type": "invalid_request_error",
            "code": "invalid_api_key",
        }
        assert not LIMIT_HEADERS & set(answer.headers)


def test_listed_keys_are_the_only_ones_and_can_be_revoked() -> None:
    """A listed key works until it is revoked, and again once it is added."""
    sim = Local(keys=("gsk_listed",))
    good, other = {"authorization": "Bearer gsk_listed"}, {"authorization": "Bearer gsk_other"}
    assert (sim.chat(headers=good).status, sim.chat(headers=other).status) == (200, 401)
    sim.ask("POST", "/_sim/keys", {"revoke": ["gsk_listed"], "add": ["gsk_other"]})
    assert (sim.chat(headers=good).status, sim.chat(headers=other).status) == (401, 200)
    sim.ask("POST", "/_sim/keys", {"add": ["gsk_listed"]})
    assert sim.chat(headers=good).status == 200


def test_any_key_can_be_revoked_while_all_are_taken() -> None:
    """Rotation can be tried without listing keys."""
    sim = Local()
    assert sim.chat().status == 200
    sim.ask("POST", "/_sim/keys", {"revoke": ["gsk_test"]})
    assert sim.chat().status == 401
    assert sim.chat(headers={"authorization": "Bearer sim-x"}).status == 200


@pytest.mark.parametrize("model", sorted(RETIRED - {"playai-tts", "playai-tts-arabic"}))
def test_the_seeds_models_are_gone_today(model: str) -> None:
    """Each answers in the seed's world, and 404 in today's."""
    assert Local(world="seed").chat(model=model).status == 200
    answer = Local().chat(model=model)
    assert answer.status == 404
    assert answer.error == {
        "message": f"The model `{model}` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "code": "model_not_found",
    }


def test_the_worlds_have_the_models_of_their_pages() -> None:
    """7 production, 2 systems, 9 previews then; 4 production and 6 previews today, and allam."""
    assert len(models_of("seed")) == 18
    assert len(models_of("today")) == 11
    assert {"openai/gpt-oss-120b", "openai/gpt-oss-20b"} < set(models_of("seed")) & set(models_of("today"))


def test_models_are_listed_with_prices_and_features() -> None:
    """Prices are decimal strings per token; one model can be asked for, its slash escaped or not."""
    sim = Local()
    listed = sim.ask("GET", "/openai/v1/models").json
    assert listed["object"] == "list"
    found = {model["id"]: model for model in listed["data"]}[MODEL]
    assert found["pricing"] == {
        "prompt": "0.000000075",
        "completion": "0.0000003",
        "image": "0",
        "request": "0",
        "input_cache_read": "0.0000000375",
    }
    assert found["supported_features"] == ["tools", "json_mode", "structured_outputs", "reasoning"]
    assert (found["context_window"], found["max_completion_tokens"], found["active"]) == (131072, 65536, True)
    for path in (f"/openai/v1/models/{MODEL}", "/openai/v1/models/openai%2Fgpt-oss-20b"):
        assert sim.ask("GET", path).json == found
    assert sim.ask("GET", "/openai/v1/models/groq/compound").error["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/openai/v1/openai/v1/chat/completions"),
        ("GET", "/openai/v1/chat/completions"),
        ("POST", "/openai/v1/batches"),
        ("POST", "/openai/v1/files"),
        ("GET", "/openai/v1/files/file_1/content"),
        ("POST", "/openai/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/"),
    ],
)
def test_paths_that_groq_has_not_are_unknown_urls(method: str, path: str) -> None:
    """A doubled prefix is one of them; batches and files are not built yet."""
    answer = Local().ask(method, path, {} if method == "POST" else None)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert answer.error["message"] == (
        f"Unknown request URL: {method} {path}. Please check the URL for typos, or see the docs at "
        "https://console.groq.com/docs/"
    )


def test_time_taken_is_the_models_speed() -> None:
    """Usage and the real wait agree: queue, prompt, and tokens at the model's pace; a scale shortens only the wait."""
    sim = Local(latency_scale=0.5)
    usage = sim.chat("<<tokens:500>>").json["usage"]
    assert usage["completion_time"] == 500 / 1000
    assert usage["total_time"] == usage["prompt_time"] + usage["completion_time"]
    assert sum(sim.clock.slept) == pytest.approx((usage["queue_time"] + usage["total_time"]) / 2)


def test_a_constant_latency_is_waited_for_and_reported() -> None:
    """latency_ms is the whole time of every answer."""
    sim = Local(latency_ms=250)
    usage = sim.chat().json["usage"]
    assert sum(sim.clock.slept) == pytest.approx(0.25)
    assert usage["queue_time"] + usage["total_time"] == pytest.approx(0.25)


def test_a_drawn_latency_varies_and_repeats() -> None:
    """A lognormal draw has its median, and the same seed draws the same."""

    def draws(seed: int) -> list[float]:
        sim = Local(latency_median_ms=100, seed=seed)
        for _ in range(101):
            sim.chat()
        return sim.clock.slept

    first = draws(1)
    assert first == draws(1) != draws(2)
    assert 0.08 < sorted(first)[50] < 0.125
    assert len(set(first)) == 101


def test_a_stream_is_role_deltas_usage_done() -> None:
    """The chunks of a stream put together are the answer; usage stands in x_groq."""
    sim = Local()
    answer = sim.chat(stream=True)
    *chunks, done = answer.events
    assert (answer.headers["content-type"], done) == ("text/event-stream", "[DONE]")
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert (deltas[0], deltas[-1]) == ({"role": "assistant", "content": ""}, {})
    assert "".join(delta.get("content", "") for delta in deltas) == expected_text(GREETING)
    assert chunks[0]["x_groq"] == {"id": answer.headers["x-request-id"]}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all("x_groq" not in chunk for chunk in chunks[1:-1])
    usage, plain = chunks[-1]["x_groq"]["usage"], sim.chat().json["usage"]
    assert usage == plain
    assert "usage" not in chunks[-1]


def test_usage_at_the_top_only_when_asked_for() -> None:
    """stream_options.include_usage adds a chunk without choices."""
    last = Local().chat(stream=True, stream_options={"include_usage": True}).events[-2]
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > 0


def test_a_stream_takes_its_time() -> None:
    """Queue and prompt come first, then the tokens at the model's pace; headers show what is reserved."""
    sim = Local(latency_scale=1)
    answer = sim.chat("<<tokens:500>>", stream=True, max_completion_tokens=600)
    assert sum(sim.clock.slept) == pytest.approx(0.5 + 0.004 + 9 / 20_000, rel=1e-3)
    assert sim.clock.slept[0] < 0.01
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(250_000 - 609, abs=30)
    assert sim.calls()[0]["completion_tokens"] == 500


def test_streams_carry_tools_and_thoughts() -> None:
    """Tool calls, executed tools and reasoning are deltas too."""
    sim = Local()
    tool = {"type": "function", "function": {"name": "look"}}

    def deltas(**body: Any) -> list[dict[str, Any]]:
        return [e["choices"][0]["delta"] for e in sim.chat(stream=True, **body).events if e != "[DONE]"]

    called = deltas(tools=[tool], tool_choice="required")
    assert [d["tool_calls"][0]["function"]["name"] for d in called if "tool_calls" in d] == ["look"]
    ran = deltas(tools=[{"type": "browser_search"}])
    began, ended = [d["executed_tools"][0] for d in ran if "executed_tools" in d]
    assert (began["name"], began["index"], "output" in began) == ("browser.search", 0, False)
    assert ended.items() > began.items()
    assert "".join(d.get("reasoning", "") for d in deltas(reasoning_effort="low"))
