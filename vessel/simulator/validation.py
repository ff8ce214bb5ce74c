"""What Groq refuses before it computes anything: parameters, each against what the model can do."""

from __future__ import annotations

import json
from typing import Any

from vessel.simulator.completion import bound
from vessel.simulator.message_rules import check_messages
from vessel.simulator.models import Feature, SimModel
from vessel.simulator.problems import Problem, invalid
from vessel.simulator.schema import lacks_strictness, malformed
from vessel.simulator.tokens import count_prompt
from vessel.simulator.tools import BUILTIN, ENABLED

MOST_TOOLS = 128
MOST_STOPS = 4
_OPEN = frozenset(
    {
        "messages", "model", "temperature", "top_p", "max_completion_tokens", "max_tokens", "n", "stop",
        "seed", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "disable_tool_validation",
        "response_format",
        "reasoning_effort", "reasoning_format", "include_reasoning", "service_tier", "documents", "citation_options",
        "search_settings", "compound_custom", "user", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs",
        "top_logprobs", "metadata", "store", "functions", "function_call", "include_domains", "exclude_domains",
    }
)  # fmt: skip
_TIERS = ("auto", "on_demand", "flex", "performance")
_MEDIA = "This model does not support response format"
_SEE = "See supported models at https://console.groq.com/docs/structured-outputs#supported-models"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def parse(raw: bytes) -> dict[str, Any]:
    """Read a request body as the JSON object with a model that it must be. Raises Problem."""
    try:
        body = _decode(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise invalid("Failed to parse the request body as JSON") from None
    if not isinstance(body, dict):
        raise invalid("value must be an object")
    if "model" not in body:
        raise invalid("property 'model' is missing", "model")
    if not isinstance(body["model"], str):
        raise invalid("'model' : value must be a string", "model")
    return body


def check(body: dict[str, Any], model: SimModel) -> int:
    """Check a request for a model; returns the tokens of its prompt. Raises Problem."""
    if not _OPEN.issuperset(body):
        raise invalid(f"property '{min(set(body) - _OPEN)}' is unsupported")
    if "messages" not in body:
        raise invalid("property 'messages' is missing", "messages")
    check_messages(body["messages"], model)
    _check_numbers(body, model)
    _check_switches(body)
    _check_objects(body)
    if body.get("tools") is not None or body.get("tool_choice") is not None or "compound_custom" in body:
        _check_tools(body, model)
    if body.get("response_format") is not None:
        _check_format(body, body["response_format"], model)
    _check_reasoning(body, model)
    prompt = count_prompt(body)
    if prompt + (bound(body) or 1) > model.context:
        text = "Please reduce the length of the messages or completion."
        raise invalid(text, "messages", "context_length_exceeded")
    return prompt


def _check_numbers(body: dict[str, Any], model: SimModel) -> None:
    for name, low, high in (
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("frequency_penalty", -2, 2),
        ("presence_penalty", -2, 2),
    ):
        if body.get(name) is not None:
            _in_range(name, body[name], low, high)
    for name in ("max_completion_tokens", "max_tokens"):
        if body.get(name) is None:
            continue
        _whole(name, body[name])
        _in_range(name, body[name], 1, None)
        if body[name] > model.max_output:
            text = (
                f"`{name}` must be less than or equal to `{model.max_output}`, the maximum value for `{name}` is less"
            )
            raise invalid(f"{text} than the `context_window` for this model", name)
    if body.get("n") is not None:
        _whole("n", body["n"])
        _in_range("n", body["n"], 1, 1)
    if body.get("seed") is not None:
        _whole("seed", body["seed"])


def _whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid(f"'{name}' : value must be an integer", name)


def _in_range(name: str, value: Any, low: float, high: float | None) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise invalid(f"'{name}' : value must be a number", name)
    if value < low:
        raise invalid(f"'{name}' : number must be at least {low}", name)
    if high is not None and value > high:
        raise invalid(f"'{name}' : number must be at most {high}", name)


def _check_switches(body: dict[str, Any]) -> None:
    for name in ("stream", "parallel_tool_calls", "include_reasoning", "disable_tool_validation"):
        if body.get(name) is not None and not isinstance(body[name], bool):
            raise invalid(f"'{name}' : value must be a boolean", name)
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > MOST_STOPS:
        raise invalid(f"'stop' : maximum number of items is {MOST_STOPS}", "stop")
    if (
        stop is not None
        and not isinstance(stop, str)
        and not (isinstance(stop, list) and all(isinstance(s, str) for s in stop))
    ):
        raise invalid("'stop' : value must be a string", "stop")
    for name in ("logprobs", "top_logprobs", "logit_bias"):
        if body.get(name):
            raise invalid(f"`{name}` is not supported with this model", name)
    if body.get("service_tier") is not None and body["service_tier"] not in _TIERS:
        allowed = " ".join(f"'{tier}'" for tier in _TIERS)
        raise invalid(f"'service_tier' : value is not one of the allowed values [{allowed}]", "service_tier")
    if body.get("user") is not None and not isinstance(body["user"], str):
        raise invalid("'user' : value must be a string", "user")


def _check_objects(body: dict[str, Any]) -> None:
    for name in ("stream_options", "search_settings", "compound_custom"):
        if body.get(name) is not None and not isinstance(body[name], dict):
            raise invalid(f"'{name}' : value must be an object", name)
    settings, custom = body.get("search_settings") or {}, body.get("compound_custom") or {}
    for name in ("include_domains", "exclude_domains"):
        _words(f"search_settings.{name}", settings.get(name))
    if not isinstance(custom.get("tools") or {}, dict):
        raise invalid("'compound_custom.tools' : value must be an object", "compound_custom")
    _words("compound_custom.tools.enabled_tools", (custom.get("tools") or {}).get("enabled_tools"))


def _words(name: str, value: Any) -> None:
    if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
        raise invalid(f"'{name}' : value must be an array")


def _check_tools(body: dict[str, Any], model: SimModel) -> None:
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise invalid("'tools' : value must be an array", "tools")
    if len(tools) > MOST_TOOLS:
        raise invalid(f"'tools' : maximum number of items is {MOST_TOOLS}", "tools")
    for index, tool in enumerate(tools):
        _check_tool(index, tool, model)
    if body.get("compound_custom") is not None and Feature.COMPOUND not in model.features:
        raise invalid("`compound_custom` is not supported with this model", "compound_custom")
    _check_enabled((((body.get("compound_custom") or {}).get("tools") or {}).get("enabled_tools")) or [])
    choice = body.get("tool_choice")
    if isinstance(choice, str) and choice not in {"none", "auto", "required"}:
        raise invalid("Only allowed string values for 'tool_choice' are none, auto, and required")
    if choice is not None and not isinstance(choice, str):
        names = [tool["function"]["name"] for tool in tools if tool["type"] == "function"]
        function = choice.get("function") if isinstance(choice, dict) else None
        if not isinstance(function, dict) or function.get("name") not in names:
            raise invalid("requested tool does not exist")
    if choice == "required" and not tools:
        raise invalid("tool_choice is required, but no tools are specified", "tool_choice")


def _check_enabled(names: list[str]) -> None:
    for name in names:
        if name not in ENABLED:
            allowed = " ".join(f"'{one}'" for one in sorted(ENABLED))
            place = "compound_custom.tools.enabled_tools"
            raise invalid(f"'{place}' : value is not one of the allowed values [{allowed}]", place)
    if "browser_automation" in names and "web_search" not in names:
        raise invalid("`browser_automation` needs `web_search` to be enabled too", "compound_custom")


def _check_tool(index: int, tool: Any, model: SimModel) -> None:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if isinstance(tool, dict) and kind == "function":
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise invalid(f"'tools.{index}.function' : property 'name' is missing", "tools")
        if function.get("parameters") is not None and (wrong := malformed(function["parameters"])):
            raise invalid(
                f"invalid JSON schema for tool {function['name']}, tools[{index}].function.parameters: {wrong}"
            )
        if Feature.TOOLS not in model.features:
            raise invalid("`tool calling` is not supported with this model", "tools")
    elif not isinstance(kind, str) or kind not in BUILTIN:
        raise invalid(f"'tools.{index}.type' : value is not one of the allowed values ['function']", "tools")
    elif Feature.BUILTIN not in model.features:
        raise invalid(f"`{kind}` is not supported with this model", "tools")


def _check_format(body: dict[str, Any], wanted: Any, model: SimModel) -> None:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if not isinstance(kind, str) or kind not in {"text", "json_object", "json_schema"}:
        wrong = "'response_format.type' : value is not one of the allowed values ['text' 'json_object' 'json_schema']"
        raise invalid(f"'response_format' : one of the following must be satisfied[({wrong})]", "response_format")
    if kind == "text":
        return
    if Feature(kind) not in model.features:
        raise invalid(f"{_MEDIA} `{kind}`. {_SEE}", "response_format")
    if body.get("tools") and body.get("tool_choice") != "none":
        raise invalid("json mode cannot be combined with tool/function calling", "response_format")
    if kind == "json_object":
        if "json" not in json.dumps(body["messages"]).lower():
            text = "'messages' must contain the word 'json' in some form, to use 'response_format' of type"
            raise invalid(f"{text} 'json_object'.", "messages")
        return
    if body.get("stream"):
        raise invalid("response_format` does not support streaming", "response_format")
    _check_schema(wanted.get("json_schema"), model)


def _check_schema(wanted: Any, model: SimModel) -> None:
    name = wanted.get("name") if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or not isinstance(name, str):
        raise invalid("'response_format.json_schema' : property 'name' is missing", "response_format")
    if not isinstance(wanted.get("schema"), dict):
        raise invalid("'response_format.json_schema' : property 'schema' is missing", "response_format")
    if wrong := malformed(wanted["schema"]):
        raise invalid(f"invalid JSON schema for response_format: '{name}': /: {wrong}", "response_format")
    if not wanted.get("strict"):
        return
    if Feature.STRICT not in model.features:
        raise invalid(f"{_MEDIA} `json_schema` with `strict`", "response_format")
    if missing := lacks_strictness(wanted["schema"]):
        raise invalid(f"invalid JSON schema for response_format: '{name}': /: {missing}", "response_format")


def _check_reasoning(body: dict[str, Any], model: SimModel) -> None:
    effort, style = body.get("reasoning_effort"), body.get("reasoning_format")
    if effort is not None and effort not in model.efforts:
        raise _bad_effort(model)
    if style is None:
        return
    if style not in ("hidden", "raw", "parsed"):
        text = "value is not one of the allowed values ['hidden' 'raw' 'parsed']"
        raise invalid(f"'reasoning_format' : {text}", "reasoning_format")
    if body.get("include_reasoning") is not None:
        raise invalid("cannot specify both `reasoning_format` and `include_reasoning`", "reasoning_format")
    if not model.efforts or model.id.startswith("openai/"):
        raise invalid("`reasoning_format` is not supported with this model", "reasoning_format")
    kind = (body.get("response_format") or {}).get("type", "text")
    if style == "raw" and (body.get("tools") or kind != "text"):
        raise invalid("`reasoning_format` must be `hidden` or `parsed` with JSON mode or tools", "reasoning_format")


def _bad_effort(model: SimModel) -> Problem:
    if not model.efforts:
        return invalid("`reasoning_effort` is not supported with this model", "reasoning_effort")
    named = [f"`{effort}`" for effort in model.efforts]
    listed = f"{named[0]} or {named[1]}" if len(named) == 2 else f"{', '.join(named[:-1])}, or {named[-1]}"  # noqa: PLR2004  two of them
    return invalid(f"`reasoning_effort` must be one of {listed}", "reasoning_effort")
