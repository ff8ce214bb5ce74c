"""What callers may say about a request, and the body and policy it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal  # noqa: TC003  a TypedDict's hints are read at run time
from difflib import get_close_matches
from typing import Any, Literal, TypedDict

from vessel.errors import InvalidRequest
from vessel.wire import ChatRequest, Policy

Prompt = str | Sequence[Mapping[str, Any]]
Duration = float | str
TaskName = Literal[
    "classification",
    "extraction",
    "qa",
    "technical_qa",
    "coding",
    "general",
    "strategic_analysis",
    "deep_reasoning",
    "research",
    "realtime",
]
BuiltinTool = Literal[
    "web_search",
    "code_execution",
    "visit_website",
    "browser_automation",
    "wolfram_alpha",
    "browser_search",
    "code_interpreter",
]
"""The seed's names and Groq's own; docs/agentic.md says what becomes of each on which model."""


class CommonOptions(TypedDict, total=False):
    """Keyword arguments of every call that makes a request.

    First Vessel's policy (contract 5), then the chat-completions fields of the groq SDK. Durations are seconds or texts
    like `"90s"` and `"2h"`. Fields that are not listed here are passed on to Groq as well.
    """

    task_type: TaskName | None
    speed_priority: Literal["balanced", "fast", "maximum"]
    tier: str | None
    priority: Literal["interactive", "normal", "batch"]
    deadline: Duration | None
    on_outage: Literal["queue", "failover", "fail"]
    fallback: Literal["chain", "none"] | Sequence[str]
    max_attempts: int | None
    max_wait: Duration | None
    max_cost_usd: Decimal | float | str | None
    context: Mapping[str, Any] | None
    builtin_tools: Sequence[BuiltinTool]
    idempotency_key: str | None
    webhook: str | None
    tags: Mapping[str, str] | None

    model: str | None
    system: str | None
    temperature: float
    top_p: float
    max_completion_tokens: int
    max_tokens: int
    stop: str | list[str]
    seed: int
    tool_choice: str | Mapping[str, Any]
    response_format: Mapping[str, Any]
    reasoning_effort: Literal["none", "default", "low", "medium", "high"]
    user: str
    extra_body: Mapping[str, Any]


class Options(CommonOptions, total=False):
    """The same with the caller's own function tools."""

    tools: Sequence[Mapping[str, Any]]


class SubmitOptions(Options, total=False):
    """The same for a job that is not waited for; `stream`: its answer is to be read as it comes."""

    stream: bool


class WaitOptions(Options, total=False):
    """The same for a call that waits: `timeout` in seconds bounds the waiting, not the job."""

    timeout: float | None


class BuiltinOptions(CommonOptions, total=False):
    """For a call that waits and whose tools are built-in ones."""

    timeout: float | None


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as Vessel's door takes it. Holds a prompt, so it is never shown."""

    body: Mapping[str, Any]
    policy: Mapping[str, Any]
    streaming: bool = False
    otherwise: Ask | None = None
    """What to ask where no model of the chain can do this."""

    def streamed(self) -> Ask:
        """Return the request with its answer to be read as it comes."""
        return Ask({**self.body, "stream": True}, self.policy, streaming=True)

    def __repr__(self) -> str:
        """Show nothing of the prompt."""
        return "Ask(...)"


POLICY = frozenset(Policy.model_fields)
_PLAIN = frozenset(ChatRequest.model_fields) | {"system", "extra_body", "timeout"}
_GROQS = frozenset({
    "citation_options", "compound_custom", "disable_tool_validation", "documents", "exclude_domains",
    "exclude_instance_ids", "frequency_penalty", "function_call", "functions", "include_domains",
    "include_reasoning", "logit_bias", "logprobs", "metadata", "parallel_tool_calls", "presence_penalty",
    "reasoning_format", "search_settings", "service_tier", "store", "stream_options", "top_k", "top_logprobs",
})  # fmt: skip
"""Further fields of the groq SDK's 1.7: never slips, however near they are to ours."""

_MEANT = {"key": "idempotency_key", "max_cost": "max_cost_usd", "prio": "priority", "task": "task_type",
          "tenant": "tags"}  # fmt: skip


def compose(prompt: Prompt, options: Mapping[str, Any], **defaults: Any) -> Ask:
    """Sort keyword arguments into body and policy; None means not given, `defaults` count where nothing was given.

    Raises InvalidRequest for a name that is nearly one of ours; other unknown fields go to Groq.
    """
    given = defaults | {name: value for name, value in options.items() if value is not None}
    _refuse_slips(given)
    if "response_model" in given:
        text = "it goes with query, analyze, submit and result."
        raise InvalidRequest(f"response_model: this call takes none; {text}", param="response_model")
    policy = {name: _plain(given.pop(name)) for name in POLICY & given.keys()}
    body = {"messages": _messages(prompt, given.pop("system", None))}
    more = given.pop("extra_body", None)
    if "stream" in given:
        raise InvalidRequest("stream: this call gives the whole answer; use `stream(...)`.", param="stream")
    return Ask(body | given | dict(more or {}), policy)


def compose_line(line: object) -> Ask:
    """Read one line of many: a chat body with an optional `vessel` object, or `{"prompt": ...}` with keyword options.

    A line of a Groq batch file is read for its `body`.
    """
    if not isinstance(line, Mapping):
        raise InvalidRequest("it must be an object with `messages` or `prompt`.")
    body: Mapping[str, Any] = line
    if isinstance(line.get("body"), Mapping) and "messages" not in line:
        body = line["body"]
    policy = body.get("vessel") or {}
    if not isinstance(policy, Mapping):
        raise InvalidRequest("vessel: it must be an object.", param="vessel")
    plain = {name: value for name, value in body.items() if name != "vessel"}
    if "prompt" in plain and "messages" not in plain:
        return compose(plain.pop("prompt"), plain | dict(policy))
    return Ask(plain, policy)


def _messages(prompt: Prompt, system: str | None) -> list[Mapping[str, Any]]:
    first: list[Mapping[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    if isinstance(prompt, str):
        if not prompt.strip():
            raise InvalidRequest("prompt: it is empty. Nothing was sent.", param="prompt")
        return [*first, {"role": "user", "content": prompt}]
    if isinstance(prompt, (bytes, Mapping)) or not isinstance(prompt, Sequence):
        raise InvalidRequest("prompt: it must be a text or a list of chat messages.", param="prompt")
    return [*first, *prompt]


def _plain(value: object) -> object:
    """Give what JSON and the policy take for what Python callers like to pass."""
    return list(value) if isinstance(value, (set, frozenset)) else value


def _refuse_slips(given: Mapping[str, Any]) -> None:
    for name in sorted(given.keys() - POLICY - _PLAIN - _GROQS):
        close = [_MEANT[name]] if name in _MEANT else get_close_matches(name, sorted(POLICY | _PLAIN), 1, cutoff=0.7)
        if close:
            raise InvalidRequest(
                f"{name}: there is no such argument; did you mean {close[0]}? A field of that name for Groq goes into "
                "extra_body.",
                param=name,
            )
