"""The seed's functions, on one client per process that is made when first needed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Unpack, overload

from vessel.client.sync import GroqClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.client.request import BuiltinOptions, BuiltinTool, Prompt, WaitOptions
    from vessel.client.result import CodeResult, Result, T


@cache
def default_client() -> GroqClient:
    """Give this process' client, made of the environment as it was at the first call."""
    return GroqClient()


@overload
def query(prompt: Prompt, *, response_model: None = None, **options: Unpack[WaitOptions]) -> Result: ...
@overload
def query(prompt: Prompt, *, response_model: type[T], **options: Unpack[WaitOptions]) -> Result[T]: ...
def query(prompt: Prompt, *, response_model: Any = None, **options: Unpack[WaitOptions]) -> Result[Any]:
    """Ask and wait for the answer; see GroqClient.query."""
    return default_client().query(prompt, response_model=response_model, **options)


@overload
def analyze(prompt: Prompt, *, response_model: None = None, **options: Unpack[WaitOptions]) -> Result: ...
@overload
def analyze(prompt: Prompt, *, response_model: type[T], **options: Unpack[WaitOptions]) -> Result[T]: ...
def analyze(prompt: Prompt, *, response_model: Any = None, **options: Unpack[WaitOptions]) -> Result[Any]:
    """Ask for a strategic analysis and wait; see GroqClient.analyze."""
    return default_client().analyze(prompt, response_model=response_model, **options)


def generate_code(prompt: Prompt, language: str | None = None, **options: Unpack[WaitOptions]) -> CodeResult:
    """Ask for code and wait; see GroqClient.generate_code."""
    return default_client().generate_code(prompt, language, **options)


def research(
    query: Prompt,
    tools: Sequence[BuiltinTool] = ("web_search",),
    max_results: int | None = None,
    **options: Unpack[BuiltinOptions],
) -> Result:
    """Ask with built-in tools and wait; see GroqClient.research."""
    return default_client().research(query, tools, max_results, **options)
