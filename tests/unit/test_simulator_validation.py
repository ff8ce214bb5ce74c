"""What the simulator refuses before it computes: Groq's own words, against what each model can do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulated import MODEL, Local

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
TOOL = {"type": "function", "function": {"name": "look"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {}}}}
LLAMA, GUARD = "llama-3.1-8b-instant", "meta-llama/llama-guard-4-12b"
SAY = {"role": "user", "content": "x"}
BAD_ROLE = "'messages.0' : discriminator property 'role' has invalid value"
CHOICES = "Only allowed string values for 'tool_choice' are none, auto, and required"
OTHER = {"type": "function", "function": {"name": "other"}}
NO_JSON = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
TIERS = "'service_tier' : value is not one of the allowed values ['auto' 'on_demand' 'flex' 'performance']"
QWEN3, QWEN = "qwen/qwen3-32b", "qwen/qwen3.8-27b"


def unsupported(index: int, role: str, name: str) -> str:
    """Write what Groq says to a property that a message may not have."""
    wrong = f"('messages.{index}' : property '{name}' is unsupported)"
    return f"'messages.{index}' : for 'role:{role}' the following must be satisfied[{wrong}]"


def too_much(name: str) -> str:
    """Write what Groq says to a budget above the model's."""
    text = f"`{name}` must be less than or equal to `65536`, the maximum value for `{name}` is less than the"
    return f"{text} `context_window` for this model"


def refused(sim: Local, **body: Any) -> str:
    """Send a chat that is refused with 400, and give the message."""
    answer = sim.chat(**body)
    assert answer.status == 400, answer.content
    assert answer.error["type"] == "invalid_request_error"
    return str(answer.error["message"])


@pytest.fixture
def today() -> Local:
    """Give a simulator of today's models."""
    return Local()


@pytest.fixture
def seed() -> Local:
    """Give a simulator of the seed's models."""
    return Local(world="seed")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "'messages' : minimum number of items is 1"),
        ({"messages": "hi"}, "'messages' : value must be an array"),
        ({"messages": [{"role": "human", "content": "x"}]}, BAD_ROLE),
        ({"messages": [{"content": "x"}]}, BAD_ROLE),
        ({"messages": ["x"]}, BAD_ROLE),
        ({"messages": [SAY | {"timestamp": 1}]}, unsupported(0, "user", "timestamp")),
        ({"messages": [SAY | {"name": "me"}]}, unsupported(0, "user", "name")),
        (
            {"messages": [SAY, {"role": "assistant", "content": "b", "reasoning_content": "c"}]},
            unsupported(1, "assistant", "reasoning_content"),
        ),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content must be a string"),
        ({"n": 2}, "'n' : number must be at most 1"),
        ({"temperature": 2.5}, "'temperature' : number must be at most 2"),
        ({"temperature": -1}, "'temperature' : number must be at least 0"),
        ({"temperature": "hot"}, "'temperature' : value must be a number"),
        ({"top_p": 1.1}, "'top_p' : number must be at most 1"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "'stop' : maximum number of items is 4"),
        ({"tools": [TOOL] * 129}, "'tools' : maximum number of items is 128"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, CHOICES),
        ({"tools": [TOOL], "tool_choice": OTHER}, "requested tool does not exist"),
        ({"logprobs": True}, "`logprobs` is not supported with this model"),
        ({"stream": "yes"}, "'stream' : value must be a boolean"),
        ({"vessel": {"tier": "power"}}, "property 'vessel' is unsupported"),
        ({"max_completion_tokens": 0}, "'max_completion_tokens' : number must be at least 1"),
        ({"max_completion_tokens": 65537}, too_much("max_completion_tokens")),
        ({"max_tokens": 70000}, too_much("max_tokens")),
        ({"reasoning_effort": "none"}, "`reasoning_effort` must be one of `low`, `medium`, or `high`"),
        ({"reasoning_format": "parsed"}, "`reasoning_format` is not supported with this model"),
        ({"service_tier": "turbo"}, TIERS),
        ({"response_format": SCHEMA, "stream": True}, "response_format` does not support streaming"),
        ({"response_format": SCHEMA, "tools": [TOOL]}, "json mode cannot be combined with tool/function calling"),
        ({"response_format": {"type": "json_object"}}, NO_JSON),
        ({"compound_custom": {}}, "`compound_custom` is not supported with this model"),
    ],
)  # fmt: skip
def test_a_bad_parameter_is_refused_in_groqs_words(today: Local, body: dict[str, Any], message: str) -> None:
    """gpt-oss-20b refuses what it cannot do; nothing is charged."""
    assert refused(today, **body) == message
    assert today.sim.limits_shown()[0]["limits"]["rpm"]["used"] == 0


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        (LLAMA, {"response_format": SCHEMA}, "This model does not support response format `json_schema`."),
        (LLAMA, {"reasoning_effort": "low"}, "`reasoning_effort` is not supported with this model"),
        (QWEN3, {"reasoning_effort": "low"}, "`reasoning_effort` must be one of `none` or `default`"),
        (GUARD, {"tools": [TOOL]}, "`tool calling` is not supported with this model"),
        (LLAMA, {"tools": [{"type": "browser_search"}]}, "`browser_search` is not supported with this model"),
        ("groq/compound", {"tools": [TOOL]}, "`tool calling` is not supported with this model"),
        ("whisper-large-v3", {}, "The model `whisper-large-v3` does not support chat completions"),
        (LLAMA, {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content must be a string"),
    ],
)
def test_models_differ_in_what_they_can_do(seed: Local, model: str, body: dict[str, Any], message: str) -> None:
    """The same request is good for one model and refused by another."""
    assert refused(seed, model=model, **body).startswith(message)


def test_a_schema_is_refused_letter_by_letter(seed: Local) -> None:
    """The body of a seen refusal had 230 bytes; this one has as many."""
    answer = seed.chat(model=LLAMA, response_format=SCHEMA)
    assert len(answer.content) == 230
    assert answer.error["param"] == "response_format"


def test_strict_schemas_are_for_gpt_oss_and_closed_objects(today: Local) -> None:
    """Strict mode wants every object closed; other models have only best effort."""
    loose = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": loose, "strict": True}}
    assert "`additionalProperties:false` must be set on every object" in refused(today, response_format=wanted)
    text = refused(today, model="openai/gpt-oss-safeguard-20b", response_format=wanted)
    assert text == "This model does not support response format `json_schema` with `strict`"


def test_vision_models_take_a_few_images(today: Local) -> None:
    """Five images are fine, six are not."""
    for count, status in ((5, 200), (6, 400)):
        messages = [{"role": "user", "content": [{"type": "text", "text": "?"}, *[IMAGE] * count]}]
        assert today.chat(model=QWEN, messages=messages).status == status


def test_the_context_holds_prompt_and_output(today: Local) -> None:
    """Prompt and asked-for output have to fit the context together."""
    answer = today.chat(model="allam-2-7b", prompt="x" * 4 * 4000, max_completion_tokens=100)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "context_length_exceeded", "messages")
    assert answer.error["message"] == "Please reduce the length of the messages or completion."
    assert today.chat(model="allam-2-7b", prompt="x" * 4 * 3990, max_completion_tokens=100).status == 200


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", b'{"messages": []}', b'{"model": 3}', b'{"model":NaN}', b"[" * 99_999]
)
def test_bytes_that_are_no_request_are_400(today: Local, body: bytes) -> None:
    """Nothing that a client sends makes a 500."""
    answer = today.ask("POST", "/openai/v1/chat/completions", body)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": None}],
        [{"role": "user"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [5]}],
        [{"role": ["user"], "content": "x"}],
    ],
)
def test_content_is_text_or_parts(today: Local, messages: Any) -> None:
    """Anything else is refused at its place."""
    assert refused(today, messages=messages).startswith("'messages.0' : ")


def test_an_assistants_turn_may_be_empty_beside_its_calls(today: Local) -> None:
    """A turn that only called tools has no content."""
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": "c", "name": "look", "content": "42"})
    assert today.chat(messages=turns).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": 0}, {"temperature": 2}, {"top_p": 1}, {"n": 1}, {"stop": "x"}, {"stop": None}, {"seed": -3},
        {"user": "u"}, {"tools": []}, {"tool_choice": None}, {"response_format": None}, {"logit_bias": None},
        {"metadata": {}}, {"store": False}, {"service_tier": "auto"}, {"stream_options": {"include_usage": True}},
        {"response_format": {"type": "text"}}, {"max_tokens": 65536, "max_completion_tokens": None},
        {"response_format": SCHEMA, "tools": [TOOL], "tool_choice": "none"}, {"parallel_tool_calls": True},
    ],
)  # fmt: skip
def test_what_groq_takes_is_taken(today: Local, body: dict[str, Any]) -> None:
    """Every documented parameter passes, null included."""
    assert today.chat(**body).status == 200, body


def test_the_answer_echoes_tier_and_seed(today: Local) -> None:
    """service_tier auto is served on demand; a given seed comes back."""
    answer = today.chat(service_tier="auto", seed=7).json
    assert (answer["service_tier"], answer["x_groq"]["seed"], answer["model"]) == ("on_demand", 7, MODEL)
