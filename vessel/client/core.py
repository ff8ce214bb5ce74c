"""The part of a client that both worlds share: what is asked, in steps that a driver carries out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.client.asking import Asking
from vessel.client.fence import fenced
from vessel.client.request import Ask, Prompt, compose
from vessel.errors import ClientClosed, InvalidRequest
from vessel.settings import Settings, load_settings
from vessel.submit import Door
from vessel.usage.budgets import WHOLE
from vessel.wire import BUILTIN_NAMES, Priority, TaskType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Core:
    """Settings, door and defaults of one client. Nothing is sent by it, and it holds no connection."""

    def __init__(
        self, redis_url: str | None, settings: Settings | None, tenant: str, timeout: float | None, overrides: Any
    ) -> None:
        """Take settings, or read the environment with single values laid over it."""
        if settings is not None and (redis_url is not None or overrides):
            raise TypeError("give either `settings` or single values, not both")
        if not tenant or tenant == WHOLE or "|" in tenant:
            raise ValueError("a tenant's name is not empty, holds no bar, and is not *, which stands for everybody")
        self.settings = settings or load_settings(redis_url=redis_url, **overrides)
        self.tenant, self.timeout = tenant, timeout
        self.waits_s(None)
        self.door = Door(self.settings)
        self.asking = Asking(self.door, tenant)

    def timeout_of(self, options: Mapping[str, Any]) -> tuple[float | None, dict[str, Any]]:
        """Part the waiting time from what belongs to the request."""
        rest = dict(options)
        return self.waits_s(rest.pop("timeout", None)), rest

    def waits_s(self, given: float | None) -> float | None:
        """Say how long to wait; None is for ever. Raises InvalidRequest for what is no number of seconds."""
        timeout = self.timeout if given is None else given
        try:
            if timeout is None or timeout >= 0:
                return timeout
        except TypeError:
            pass
        raise InvalidRequest("timeout: it is a number of seconds, at least 0.", param="timeout")


class Configured:
    """What a client is before it connects: its settings, its way in, and whether it has been closed for good."""

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        settings: Settings | None = None,
        tenant: str = "default",
        timeout: float | None = None,
        **overrides: object,
    ) -> None:
        """Take settings from the environment, or given as a whole or by name (`namespace=`, `org=`).

        Nothing is sent yet. `timeout` bounds, in seconds, every call that waits and names none itself. Raises
        SettingsError.
        """
        self._core = Core(redis_url, settings, tenant, timeout, overrides)
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Hold no connection yet."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes, its settings and their secrets included; it connects anew there."""
        return _remade, (type(self), self._core.settings, self._core.tenant, self._core.timeout)

    @property
    def door(self) -> Door:
        """The way in that this client uses."""
        return self._core.door

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed


def _remade(kind: type[Configured], settings: Settings, tenant: str, timeout: float | None) -> Configured:
    return kind(settings=settings, tenant=tenant, timeout=timeout)


def query(prompt: Prompt, options: Mapping[str, Any]) -> Ask:
    """Ask in the interactive lane."""
    return compose(prompt, options, priority=Priority.INTERACTIVE)


def analysis(prompt: Prompt, options: Mapping[str, Any]) -> Ask:
    """Ask for a strategic analysis unless another task was named."""
    return compose(prompt, options, priority=Priority.INTERACTIVE, task_type=TaskType.STRATEGIC_ANALYSIS)


def code(prompt: Prompt, language: str | None, options: Mapping[str, Any]) -> Ask:
    """Ask for code, alone in one Markdown fence unless the caller has an own system message."""
    named = f", marked as {language}" if language else ""
    system = f"Answer with {language or 'the'} code only, in one fenced Markdown block{named}."
    more = {"system": system} if isinstance(prompt, str) else {}
    return compose(prompt, options, priority=Priority.INTERACTIVE, task_type=TaskType.CODING, **more)


def research(query_text: Prompt, tools: Sequence[str], options: Mapping[str, Any], max_results: Any = None) -> Ask:
    """Ask for research with built-in tools, which routes to the compound tier.

    Groq's API bounds the results of a search nowhere, so `max_results` is said to the model. Raises InvalidRequest.
    """
    more: dict[str, Any] = {"priority": Priority.INTERACTIVE, "task_type": TaskType.RESEARCH}
    if max_results is not None:
        if isinstance(max_results, bool) or not isinstance(max_results, int) or max_results < 1:
            raise InvalidRequest("max_results: it must be a whole number of at least 1.", param="max_results")
        bound = (
            f"Use at most {max_results} results of a search (topn {max_results}), and name no more sources than that."
        )
        options = {**options, "system": "\n\n".join(filter(None, [options.get("system"), bound]))}
    return compose(query_text, options, **more, **_switched_on(tools))


def execution(task: str, program: str | None, tools: Sequence[str], options: Mapping[str, Any]) -> Ask:
    """Ask to run code with built-in tools, which routes to the compound tier. Raises InvalidRequest."""
    prompt = f"{task}\n\n{fenced(program)}" if program else task
    return compose(prompt, options, priority=Priority.INTERACTIVE, **_switched_on(tools))


def _switched_on(tools: object) -> dict[str, Any]:
    """Name the tools, and have one used, as Groq's own example for gpt-oss does; a system uses them by itself."""
    names = [tools] if isinstance(tools, str) else [] if tools is None else tools
    if not isinstance(names, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in names):
        raise InvalidRequest("tools: they are a list of names of built-in tools.", param="tools")
    if not BUILTIN_NAMES.keys() >= set(names):
        text = f"tools: there is no such built-in tool; there are {', '.join(BUILTIN_NAMES)}."
        raise InvalidRequest(text, param="tools")
    names = list(names) if isinstance(names, (list, tuple)) else sorted(names)
    return {"builtin_tools": names, "tool_choice": "required"}


def enqueued(prompt: Prompt, options: Mapping[str, Any]) -> Ask:
    """Ask without waiting, in the normal lane, with `stream` for an answer that is read as it comes."""
    rest = dict(options)
    streams = rest.pop("stream", False)
    ask = submission(prompt, rest)
    return ask.streamed() if streams else ask


def submission(prompt: Prompt, options: Mapping[str, Any]) -> Ask:
    """Ask without waiting, in the normal lane."""
    return compose(prompt, options)
