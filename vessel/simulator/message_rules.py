"""What Groq refuses in `messages`, in the words of its validator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.simulator.models import Feature, SimModel
from vessel.simulator.problems import invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_IMAGES = 5
_COMMON = frozenset({"role", "content"})
_ALLOWED = {
    "system": _COMMON,
    "developer": _COMMON,
    "user": _COMMON,
    "assistant": _COMMON | {"tool_calls", "function_call", "reasoning", "refusal", "executed_tools", "annotations"},
    "tool": _COMMON | {"tool_call_id", "name"},
    "function": _COMMON | {"name"},
}
_MAY_BE_EMPTY = frozenset({"tool_calls", "function_call", "reasoning", "executed_tools"})


def check_messages(messages: Any, model: SimModel) -> None:
    """Check the messages of a request for a model. Raises Problem."""
    if not isinstance(messages, list):
        raise invalid("'messages' : value must be an array", "messages")
    if not messages:
        raise invalid("'messages' : minimum number of items is 1", "messages")
    images = 0
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        allowed = _ALLOWED.get(role) if isinstance(role, str) else None
        if not isinstance(role, str) or allowed is None:
            raise invalid(f"'messages.{index}' : discriminator property 'role' has invalid value")
        if not allowed.issuperset(message):
            unknown = min(set(message) - allowed)
            raise _unsatisfied(index, role, [f"'messages.{index}' : property '{unknown}' is unsupported"])
        content = message.get("content")
        if isinstance(content, str):
            continue
        images += _check_content(index, message, model)
    if images > MOST_IMAGES:
        raise invalid(f"Too many images provided. This model supports up to {MOST_IMAGES} images")


def _check_content(index: int, message: dict[str, Any], model: SimModel) -> int:
    """Check content that is no string; returns how many images it holds."""
    content, role = message.get("content"), message["role"]
    where = f"'messages.{index}.content'"
    if content is None:
        if role == "assistant" and _MAY_BE_EMPTY.intersection(message):
            return 0
        wrong = f"'messages.{index}' : property 'content' is missing"
        raise _unsatisfied(index, role, [wrong] if "content" not in message else [f"{where} : value must be a string"])
    if not isinstance(content, list):
        raise _unsatisfied(index, role, [f"{where} : value must be a string", f"{where} : value must be an array"])
    if not content:
        raise _unsatisfied(
            index, role, [f"{where} : value must be a string", f"{where} : minimum number of items is 1"]
        )
    images = 0
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image_url" and isinstance(part.get("image_url"), dict):
            images += 1
        elif kind != "text" or not isinstance(part.get("text"), str):
            raise _unsatisfied(
                index, role, [f"'messages.{index}.content.{at}' : value is not one of the allowed parts"]
            )
    if images and (Feature.VISION not in model.features or role != "user"):
        raise invalid(f"messages[{index}].content must be a string", f"messages[{index}].content")
    return images


def _unsatisfied(index: int, role: str, wrongs: Iterable[str]) -> Exception:
    alternatives = " OR ".join(f"({wrong})" for wrong in wrongs)
    return invalid(f"'messages.{index}' : for 'role:{role}' the following must be satisfied[{alternatives}]")
