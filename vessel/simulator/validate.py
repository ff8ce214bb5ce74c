"""What Groq refuses before computing, with its own texts where one was ever seen (groq-facts 1.2, 1.6, 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vessel.simulator.models import SimModel

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


@dataclass(frozen=True, slots=True)
class Fault:
    """An error answer: its status and the members of its `error` object."""

    message: str
    status: int = 400
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    failed_generation: str | None = None

    def body(self) -> dict[str, Any]:
        """Write the body as Groq does: absent members are left out."""
        more = {"code": self.code, "param": self.param, "failed_generation": self.failed_generation}
        return {
            "error": {"message": self.message, "type": self.type} | {k: v for k, v in more.items() if v is not None}
        }


def not_found(model: str) -> Fault:
    """Answer an unknown or retired model."""
    text = f"The model `{model}` does not exist or you do not have access to it."
    return Fault(text, 404, code="model_not_found")


def decommissioned(model: str) -> Fault:
    """Answer a retired model the other way Groq does."""
    text = f"The model `{model}` has been decommissioned and is no longer supported. Please refer to "
    return Fault(text + "https://console.groq.com/docs/deprecations for a recommendation on which to use instead.",
                 code="model_decommissioned")  # fmt: skip


def over_capacity(model: str) -> Fault:
    """Answer a model that is overloaded or in maintenance."""
    text = f"{model} is currently over capacity. Please try again and back off exponentially. "
    return Fault(text + "Visit https://groqstatus.com to see if there is an active incident.", 503,
                 "internal_server_error")  # fmt: skip


def check_messages(messages: Any, model: SimModel) -> Fault | None:  # noqa: PLR0911  one answer per fault
    """Check the messages of a request."""
    if not isinstance(messages, list):
        return Fault("'messages' : value must be a list", param="messages")
    if not messages:
        return Fault("'messages' : minimum number of items is 1", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return Fault(f"'messages.{index}' : discriminator property 'role' has invalid value", param="messages")
        if "reasoning_content" in message:
            return Fault(f"'messages.{index}' : property 'reasoning_content' is unsupported", param="messages")
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            return Fault(f"'messages.{index}' : property 'content' is missing", param="messages")
        parts = content if isinstance(content, list) else []
        if "vision" not in model.features and any(isinstance(p, dict) and p.get("type") == "image_url" for p in parts):
            return Fault(f"'messages.{index}.content' : value must be a string", param="messages")
    return None


def _number(body: dict[str, Any], name: str, low: float, high: float) -> Fault | None:
    value = body.get(name)
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high):
        return None
    return Fault(f"`{name}` must be a number between {low:g} and {high:g}", param=name)


def _output(body: dict[str, Any], model: SimModel) -> Fault | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            return Fault(f"`{name}` must be at least 1", param=name)
        if value > model.max_output:
            text = (
                f"`{name}` must be less than or equal to `{model.max_output}`, the maximum value for `{name}` is less "
            )
            return Fault(text + "than the `context_window` for this model", param=name)
    return None


def _reasoning(body: dict[str, Any], model: SimModel) -> Fault | None:
    effort = body.get("reasoning_effort")
    if effort is None or effort in model.reasoning_efforts:
        return None
    if not model.reasoning_efforts:
        return Fault("`reasoning_effort` is not supported with this model", param="reasoning_effort")
    allowed = [f"`{e}`" for e in model.reasoning_efforts]
    return Fault(f"`reasoning_effort` must be one of {', '.join(allowed[:-1])}, or {allowed[-1]}",
                 param="reasoning_effort")  # fmt: skip


def _format(body: dict[str, Any], model: SimModel) -> Fault | None:
    kind = (body.get("response_format") or {}).get("type", "text")
    needed = {"json_object": "json_object", "json_schema": "json_schema"}.get(kind)
    if kind not in {"text", "json_object", "json_schema"}:
        return Fault("`response_format.type` must be one of `text`, `json_object`, or `json_schema`",
                     param="response_format")  # fmt: skip
    if needed and needed not in model.features:
        return Fault(f"This model does not support response format `{kind}`.", param="response_format")
    if kind == "json_schema" and body.get("stream"):
        return Fault("`response_format` does not support streaming", param="response_format")
    if kind == "json_schema" and body.get("tools"):
        return Fault("json mode cannot be combined with tool/function calling", param="response_format")
    return None


def _tools(body: dict[str, Any], model: SimModel) -> Fault | None:
    for index, tool in enumerate(body.get("tools") or []):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind == "function" and "tools" in model.features:
            continue
        if kind in {"browser_search", "code_interpreter"} and {"builtin_tools", "tools"} <= model.features:
            continue
        return Fault(f"`tools.{index}.type` {kind!r} is not supported with this model", param="tools")
    if "compound_custom" in body and "compound" not in model.features:
        return Fault("`compound_custom` is not supported with this model", param="compound_custom")
    return None


def check(body: dict[str, Any], model: SimModel, prompt_tokens: int) -> Fault | None:
    """Check a whole request for a model; None when it may be computed."""
    fault = check_messages(body.get("messages"), model)
    fault = fault or _number(body, "temperature", 0, 2) or _number(body, "top_p", 0, 1) or _output(body, model)
    fault = fault or _reasoning(body, model) or _format(body, model) or _tools(body, model)
    if fault is not None:
        return fault
    if body.get("n") not in {None, 1}:
        return Fault("'n' : number must be at most 1", param="n")
    if isinstance(body.get("stop"), list) and len(body["stop"]) > 4:  # noqa: PLR2004  Groq's bound
        return Fault("'stop' : maximum number of items is 4", param="stop")
    for name in ("logprobs", "top_logprobs", "logit_bias"):
        if body.get(name):
            return Fault(f"property '{name}' is unsupported", param=name)
    if prompt_tokens > model.context:
        text = "Please reduce the length of the messages or completion."
        return Fault(text, code="context_length_exceeded", param="messages")
    return None
