"""The ticket: the kombu message that wakes a worker, as a template that Lua fills in.

Only job ids and generations travel. Imports no Celery: producers write envelopes without it. The shape is held
against a real `app.send_task` by a test, because a worker of plain Celery must be able to read it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TASK_NAME = "vessel.run_jobs"

_EMBED: dict[str, None] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_BODY_ENCODING = "utf-8"
_MARK = re.compile("@[A-Z]+@")


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


@cache
def template() -> str:
    """Give the envelope with the marks `@QUEUE@ @TAG@ @TASK@ @ARGS@ @REPR@`, each standing inside a JSON string.

    `@RETRIES@` stands for a number.
    `@TAG@` must differ for every message pushed (kombu keeps unacknowledged ones under it). `@ARGS@` takes the JSON
    list of pairs with its quotes escaped once more. Nothing put in may hold a quote, backslash or control character.
    """
    body = _compact([["@ARGS@"], {}, _EMBED]).replace('"@ARGS@"', "@ARGS@")
    envelope = _compact(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": TASK_NAME,
                "id": "@TASK@",
                "root_id": "@TASK@",
                "retries": "@RETRIES@",
                "timelimit": [None, None],
                "argsrepr": "@REPR@",
                "kwargsrepr": "{}",
                "origin": "vessel",
                "ignore_result": True,
            },
            "properties": {
                "correlation_id": "@TASK@",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "@QUEUE@"},
                "priority": 0,
                "body_encoding": _BODY_ENCODING,
                "delivery_tag": "@TAG@",
            },
        }
    )
    return envelope.replace('"@RETRIES@"', "@RETRIES@")


def _inside(text: str) -> str:
    return json.dumps(text)[1:-1]


def render(queue: str, pairs: Sequence[tuple[str, int]], tag: str, task_id: str, shown: str) -> str:
    """Fill the template as Lua does; `shown` is what Flower displays as the arguments."""
    marks = {
        "@QUEUE@": _inside(queue),
        "@TAG@": _inside(tag),
        "@TASK@": _inside(task_id),
        "@ARGS@": _inside(_compact([list(pair) for pair in pairs])),
        "@REPR@": _inside(shown),
        "@RETRIES@": "0",
    }
    return _MARK.sub(lambda found: marks[found[0]], template())


def _decode_body(message: dict[str, Any]) -> Any:
    body = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        body = base64.b64decode(body)
    return json.loads(body)


def parse(raw: bytes | str) -> list[tuple[str, int]]:
    """Read the pairs out of an envelope; another program's message or a broken one gives none."""
    try:
        message = json.loads(raw)
        if message["headers"]["task"] != TASK_NAME:
            return []
        return [(str(job_id), int(generation)) for job_id, generation in _decode_body(message)[0][0]]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, binascii.Error):
        return []
