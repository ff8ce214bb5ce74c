"""Lines of a batch file: found in a stream of bytes, and checked one by one without echoing what they hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from vessel.batches.model import ENDPOINT, ENDPOINTS, FAULTS_TOLD, LONGEST_LINE, MOST_LINES, Fault, TooManyLines
from vessel.errors import InvalidRequest, Unreachable
from vessel.gate.tokens import estimate_tokens
from vessel.wire import Policy, Priority, check_submission

if TYPE_CHECKING:
    from vessel.routing.router import Route
    from vessel.wire import Submission

BLOCK = 500
"""Lines in one string of the index."""

LONGEST_ID = 512
MOST_DEPTH = 64
"""Levels of arrays and objects in a request. A JSON schema in a tool needs a dozen."""

SHORT_TOKENS = 4000
"""A prompt that cannot be longer fits every model, whatever its text: it needs no estimate."""

_BOM = b"\xef\xbb\xbf"
Planned = Callable[[Mapping[str, Any], Mapping[str, Any]], "tuple[Submission, Route, int]"]


class Splitter:
    """Finds lines in chunks of bytes; holds no more than the line that has not ended yet."""

    def __init__(self) -> None:
        """Begin at the start of a file."""
        self._rest = bytearray()
        self._offset = 0
        self._dropped = 0
        self.number = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, int, int, bytes | None]]:
        """Yield number, offset, length and bytes of each line that ends here and is not blank.

        A line that is too long comes without its bytes, which were not kept.
        """
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if self._rest or self._dropped:
                self._add(chunk[start:end])
                yield from self._line(bytes(self._rest), 1)
                self._rest.clear()
            else:
                yield from self._line(chunk[start:end], 1)
            start = end + 1
        self._add(chunk[start:] if start else chunk)

    def finish(self) -> Iterator[tuple[int, int, int, bytes | None]]:
        """Yield the last line, where no newline ends it."""
        if self._rest or self._dropped:
            yield from self._line(bytes(self._rest), 0)
            self._rest.clear()

    def _add(self, part: bytes) -> None:
        if self._dropped or len(self._rest) + len(part) > LONGEST_LINE:
            self._dropped += len(self._rest) + len(part)
            self._rest.clear()
        else:
            self._rest += part

    def _line(self, text: bytes, newline: int) -> Iterator[tuple[int, int, int, bytes | None]]:
        self.number += 1
        at, length = self._offset, len(text) or self._dropped
        if self._dropped:
            length = self._dropped
        self._offset += length + newline
        if self._dropped:
            self._dropped = 0
            yield self.number, at, length, None
            return
        if self.number == 1 and text.startswith(_BOM):
            at, length, text = at + len(_BOM), length - len(_BOM), text[len(_BOM) :]
        if len(text) > LONGEST_LINE:
            yield self.number, at, length, None
        elif text.strip():
            yield self.number, at, length, text


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was read: its id and its request."""

    custom_id: str
    body: dict[str, Any]


class BadLine(InvalidRequest):
    """The line is not valid."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        """Take the code that the report names."""
        self.kind = code
        super().__init__(message, param=param)


def parse_line(text: bytes) -> Line:
    """Read one line. Raises BadLine."""
    found = _json(text)
    if not isinstance(found, dict):
        raise BadLine("invalid_json_line", "it is not a JSON object.")
    custom_id = found.get("custom_id")
    if custom_id is None:
        raise BadLine("missing_custom_id", "custom_id is missing.", "custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_ID or not custom_id.isprintable():
        text_ = f"custom_id: it must be a text of 1 to {LONGEST_ID} printable characters."
        raise BadLine("invalid_custom_id", text_, "custom_id")
    if found.get("method", "POST") != "POST":
        raise BadLine("invalid_method", "method: it must be POST.", "method")
    if found.get("url") not in ENDPOINTS:
        raise BadLine("invalid_url", f"url: it must be {ENDPOINT}, the batch's endpoint.", "url")
    body = found.get("body")
    if not isinstance(body, dict):
        raise BadLine("invalid_body", "body: it must be a chat-completions request, an object.", "body")
    return Line(custom_id, body)


def _json(text: bytes) -> object:
    try:
        found = json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise BadLine("invalid_json_line", "it is not UTF-8 text.") from None
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", None) or "nested too deeply, or a number that JSON does not know"
        raise BadLine("invalid_json_line", f"it is not JSON ({why}).") from None
    if text.count(b"{") + text.count(b"[") > MOST_DEPTH and depth(found, MOST_DEPTH) > MOST_DEPTH:
        raise BadLine("nested_too_deep", f"it is nested more than {MOST_DEPTH} levels deep.")
    return found


def depth(value: object, most: int) -> int:
    """Count the levels of arrays and objects; beyond `most` it stops counting."""
    level, found = [value] if isinstance(value, (dict, list)) else [], 0
    while level and found <= most:
        found += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return found


def _no_number(name: str) -> object:
    raise ValueError(name)


class _Twice(ValueError):
    msg = "a name occurs twice in an object"


def _once(given: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(given)
    if len(found) != len(given):
        raise _Twice
    return found


def split_policy(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a line's body from its policy; a line always waits in the batch lane. Raises BadLine."""
    given = body.get("vessel")
    if given is not None and not isinstance(given, dict):
        raise BadLine("invalid_body", "vessel: it must be an object.", "body.vessel")
    policy = dict(given or {}) | {"priority": Priority.BATCH}
    if policy.get("idempotency_key") is not None:
        text = "vessel.idempotency_key: a line has its custom_id; give the key with the batch."
        raise BadLine("invalid_body", text, "body.vessel.idempotency_key")
    return {name: value for name, value in body.items() if name != "vessel"}, policy


@dataclass(slots=True)
class Index:
    """Where the lines of each group lie, ready to be written; a group's lines wait for the same model."""

    totals: list[int] = field(default_factory=list)
    ready: list[tuple[str, bytes]] = field(default_factory=list)
    """Finished blocks, as a field `group:block` of the index and its JSON; whoever writes them takes them out."""
    _groups: dict[str, int] = field(default_factory=dict)
    _open: list[list[tuple[int, int, int, str]]] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """Count the lines."""
        return sum(self.totals)

    @property
    def models(self) -> list[str]:
        """Name the groups' models."""
        return list(self._groups)

    def add(self, model: str, number: int, offset: int, length: int, custom_id: str) -> None:
        """Note a line that waits for a model."""
        group = self._groups.get(model)
        if group is None:
            group = self._groups[model] = len(self.totals)
            self.totals.append(0)
            self._open.append([])
        self.totals[group] += 1
        block = self._open[group]
        block.append((number, offset, length, custom_id))
        if len(block) == BLOCK:
            self._close(group)

    def finish(self) -> None:
        """Close the blocks that are not full."""
        for group, block in enumerate(self._open):
            if block:
                self._close(group)

    def _close(self, group: int) -> None:
        name = f"{group}:{(self.totals[group] - 1) // BLOCK}"
        text = json.dumps(self._open[group], separators=(",", ":"))
        self.ready.append((name, text.encode()))
        self._open[group] = []


SAMPLED_FIRST, SAMPLED_EVERY = 64, 64


@dataclass(slots=True)
class Tally:
    """What the lines of one model come to; prompt tokens are counted for a sample and scaled by bytes."""

    lines: int = 0
    bytes: int = 0
    asked_output: int = 0
    unbounded: int = 0
    """Lines that do not bound their answer."""
    tools: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Lines by the built-in tools that they switch on."""
    sampled_bytes: int = 0
    sampled_tokens: int = 0

    def add(self, body: Mapping[str, Any], model: str, length: int, tools: tuple[str, ...] = ()) -> None:
        """Count a line."""
        if tools:
            self.tools[tools] += 1
        if self.lines < SAMPLED_FIRST or self.lines % SAMPLED_EVERY == 0:
            self.sampled_bytes += length
            self.sampled_tokens += estimate_tokens(body["messages"], model, body.get("tools"))
        self.lines += 1
        self.bytes += length
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        self.asked_output += asked or 0
        self.unbounded += not asked

    @property
    def prompt_tokens(self) -> int:
        """Return about how many tokens the prompts have."""
        return self.bytes * self.sampled_tokens // max(1, self.sampled_bytes)


class Checker:
    """Checks the lines of one file and builds its index; faults are gathered, up to a hundred."""

    def __init__(self, planned: Planned) -> None:
        """Take what checks and routes a request; it touches no Redis."""
        self.index = Index()
        self.faults: list[Fault] = []
        self.splitter = Splitter()
        self.tallies: dict[str, Tally] = {}
        self._planned = planned
        self._seen: dict[str, int] = {}
        self._models: dict[object, tuple[str, tuple[str, ...]]] = {}

    @property
    def full(self) -> bool:
        """Tell whether no more faults are told."""
        return len(self.faults) >= FAULTS_TOLD

    def feed(self, chunk: bytes) -> None:
        """Check the lines that end in a chunk. Raises TooManyLines."""
        for line in self.splitter.feed(chunk):
            self._take(*line)

    def finish(self) -> None:
        """Check the last line and close the index. Raises TooManyLines."""
        for line in self.splitter.finish():
            self._take(*line)
        self.index.finish()

    def _take(self, number: int, offset: int, length: int, text: bytes | None) -> None:
        if self.full:
            return
        if len(self._seen) >= MOST_LINES:
            raise TooManyLines
        try:
            line = self._new(number, length, text)
            model, tools = self._model(line, length)
            self.tallies.setdefault(model, Tally()).add(line.body, model, length, tools)
            self.index.add(model, number, offset, length, line.custom_id)
        except BadLine as fault:
            self.faults.append(Fault(fault.kind, number, fault.message, fault.param))
        except (InvalidRequest, Unreachable) as fault:
            self.faults.append(Fault(fault.code, number, fault.message, f"body.{fault.param}" if fault.param else None))

    def _new(self, number: int, length: int, text: bytes | None) -> Line:
        """Read a line whose custom_id no line before it has."""
        if text is None:
            raise BadLine("line_too_long", f"it has {length} bytes; at most {LONGEST_LINE} are taken.")
        line = parse_line(text)
        first = self._seen.setdefault(line.custom_id, number)
        if first != number:
            raise BadLine("duplicate_custom_id", f"custom_id: line {first} has the same one.", "custom_id")
        return line

    def _model(self, line: Line, length: int) -> tuple[str, tuple[str, ...]]:
        """Check a request, name its model and its built-in tools; lines alike but for their texts are routed once."""
        body, policy = split_policy(line.body)
        if body.get("stream"):
            raise InvalidRequest("stream: a batch's line does not stream; leave `stream` out.", param="stream")
        alike = _alike(body, policy) if length + 100 < SHORT_TOKENS else None
        if alike is not None and (known := self._models.get(alike)) is not None:
            check_submission(body, _PLAIN)
            return known
        _, found, _ = self._planned(body, policy)
        planned = found.hops[0].model, found.builtin_tools
        if alike is not None:
            self._models[alike] = planned
        return planned


_PLAIN = Policy(priority=Priority.BATCH)


def _alike(body: Mapping[str, Any], policy: Mapping[str, Any]) -> object | None:
    """Give what decides a short text-only request's route where its model is named; None where its text may."""
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str) or model == "auto" or not isinstance(messages, list):
        return None
    if not all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages):
        return None
    asked = body.get("max_completion_tokens") or body.get("max_tokens") or 1
    if not isinstance(asked, int) or asked > SHORT_TOKENS:
        return None
    rest = {name: value for name, value in body.items() if name != "messages"}
    return repr((rest, policy))


def read_block(raw: bytes | None) -> list[tuple[int, int, int, str]]:
    """Read a block of the index: number, offset, length and custom_id of each line; none where it is gone."""
    return [cast("tuple[int, int, int, str]", tuple(row)) for row in json.loads(raw or b"[]")]
