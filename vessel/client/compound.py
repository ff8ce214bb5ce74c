"""GroqCompound: research and execution with built-in tools, on whatever model carries the compound tier today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from vessel.client.sync import GroqClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.client.request import BuiltinOptions, BuiltinTool, Prompt
    from vessel.client.result import Result


class GroqCompound:
    """Ask with built-in tools: web search and code execution."""

    def __init__(self, redis_url: str | None = None, *, client: GroqClient | None = None, **options: Any) -> None:
        """Use a client, or make one of the same arguments as GroqClient's."""
        if client is not None and (redis_url is not None or options):
            raise TypeError("give either `client` or the arguments of one, not both")
        self.client = client or GroqClient(redis_url, **options)

    def research(
        self,
        query: Prompt,
        tools: Sequence[BuiltinTool] = ("web_search",),
        max_results: int | None = None,
        **options: Unpack[BuiltinOptions],
    ) -> Result:
        """Ask and wait; the result's `sources` are at most `max_results` pages, where the model tells them."""
        return self.client.research(query, tools, max_results, **options)

    def execute(
        self,
        task: str,
        code: str | None = None,
        tools: Sequence[BuiltinTool] = ("code_execution",),
        **options: Unpack[BuiltinOptions],
    ) -> Result:
        """Have code written and run, or the given one, and wait; `executed_tools` holds what ran."""
        return self.client.execute(task, code, tools, **options)
