"""Reading JSON bodies: strictly, within bounds, and so that what is passed on is what was sent."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from fastapi import Depends, Request

from vessel.api.faults import InvalidJson, UnsupportedMedia
from vessel.batches.lines import MOST_DEPTH, depth

if TYPE_CHECKING:
    from collections.abc import Sequence

INLINE_BYTES = 128 * 1024
"""A larger body is parsed in a thread, so that other requests go on."""


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON object as it came and as it was read. Holds a prompt, so it is never shown."""

    raw: bytes
    value: dict[str, Any]

    def __repr__(self) -> str:
        """Show nothing of it."""
        return f"Body({len(self.raw)} bytes)"


def parse_object(raw: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises InvalidJson for all that JSON is not, or that two readers could read differently.

    That is: other encodings than UTF-8, a byte order mark, NaN and infinities, numbers beyond what can be read, names
    given twice, and more than MOST_DEPTH levels. Values are never repeated in the error.
    """
    if not raw.strip():
        raise InvalidJson("The body is empty. Send a JSON object.")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise InvalidJson("The body is not UTF-8.") from None
    except RecursionError:
        raise InvalidJson(f"The body is nested more than {MOST_DEPTH} levels deep.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidJson(f"The body is not valid JSON: {error.msg} ({where}).") from None
    except ValueError:  # an integer of thousands of digits
        raise InvalidJson("The body holds a number that is too long.") from None
    if not isinstance(value, dict):
        raise InvalidJson("The body is not a JSON object.")
    if depth(value, MOST_DEPTH) > MOST_DEPTH:
        raise InvalidJson(f"The body is nested more than {MOST_DEPTH} levels deep.")
    return value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidJson("The body holds an object that names a field twice.")
    return found


def _no_constant(_name: str) -> NoReturn:
    raise InvalidJson("The body holds NaN or an infinity, which JSON does not have.")


def check_media(request: Request, expected: str = "application/json") -> None:
    """Refuse a body of another kind: a page's own form could send one here without asking. Raises UnsupportedMedia."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != expected:
        raise UnsupportedMedia(f"The body must be {expected}; set the content-type header to it.", param="content-type")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMedia("A compressed body is not taken; send it as it is.", param="content-encoding")


async def read_object(request: Request) -> Body:
    """Read the request's JSON object."""
    check_media(request)
    raw = await request.body()
    value = parse_object(raw) if len(raw) <= INLINE_BYTES else await asyncio.to_thread(parse_object, raw)
    return Body(raw, value)


JsonBody = Annotated[Body, Depends(read_object)]
