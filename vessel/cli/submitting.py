"""Submitting: one prompt, or a file of which every line is checked and routed before the first one is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.cli.faults import BadUse
from vessel.cli.output import emit, note, say
from vessel.cli.reading import lines, prompt_text, request_line
from vessel.client import GroqClient
from vessel.client.request import POLICY, compose_line
from vessel.errors import VesselError

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.registry import Availability

FAULTS_TOLD = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a file."""

    number: int
    custom_id: str | None
    request: dict[str, Any]


def submit(text: str | None, file: Path | None, asked: dict[str, Any], *, as_json: bool) -> None:
    """Submit and print the ids."""
    match text, file:
        case str(), None:
            _submit_text(text, asked, as_json=as_json)
        case None, file if file is not None:
            submit_file(file, asked, as_json=as_json)
        case _:
            raise BadUse("Give either a TEXT or --file F.jsonl.")


def _submit_text(text: str, asked: dict[str, Any], *, as_json: bool) -> None:
    prompt = prompt_text(text)
    with GroqClient() as client:
        handle = client.submit(prompt, **asked)
    if as_json:
        emit({"id": handle.id, "tier": handle.tier, "model": handle.model, "existing": handle.existing})
    else:
        say(handle.id)


def submit_file(file: Path, defaults: dict[str, Any], *, as_json: bool) -> None:
    """Submit a file's lines; `defaults` count where a line does not say otherwise. Raises BadUse with line numbers."""
    if "idempotency_key" in defaults:
        raise BadUse("--key names one job; in a file, give each line its own vessel.idempotency_key.", param="--key")
    with GroqClient() as client:
        availability = client.runner.run(client.door.availability())
        found = read_requests(file, defaults, client, availability)
        try:
            handles = client.submit_many(line.request for line in found)
        except KeyboardInterrupt as stop:
            stop.add_note("Some lines may have been accepted before: `vessel jobs --since 1m` lists their jobs.")
            raise
    for line, handle in zip(found, handles, strict=True):
        if as_json:
            emit({"id": handle.id, "line": line.number, "custom_id": line.custom_id, "tier": handle.tier,
                  "model": handle.model, "existing": handle.existing})  # fmt: skip
        else:
            say(handle.id)
    note(f"-- {len(handles)} jobs submitted")


def read_requests(file: Path, defaults: dict[str, Any], client: GroqClient, availability: Availability) -> list[Line]:
    """Read and check all lines. Raises BadUse that names the faulty ones."""
    found: list[Line] = []
    faults: list[str] = []
    for number, text in lines(file):
        try:
            raw = request_line(text)
            request = _with_defaults(raw, defaults)
            ask = compose_line(request)
            client.door.prepare(ask.body, ask.policy, availability=availability)
        except VesselError as error:
            faults.append(f"line {number}: {error.message}")
        except (ValueError, TypeError) as error:
            faults.append(f"line {number}: {error}.")
        else:
            custom = raw.get("custom_id")
            found.append(Line(number, custom if isinstance(custom, str) else None, request))
    if faults:
        more = len(faults) - FAULTS_TOLD
        told = [f"  {fault}" for fault in faults[:FAULTS_TOLD]] + ([f"  and {more} more"] if more > 0 else [])
        raise BadUse("\n".join([f"{file} was not submitted; nothing was sent:", *told]), param="--file")
    if not found:
        raise BadUse(f"{file} holds no requests. Nothing was sent.", param="--file")
    return found


def _with_defaults(raw: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Lay a line over the command's options; a batch line becomes its body."""
    body = raw["body"] if "body" in raw and "messages" not in raw else raw
    if "prompt" in body and "messages" not in body:
        own = {name: value for name, value in body.items() if name not in {"vessel", "custom_id"}}
        return defaults | own | (body.get("vessel") or {})
    policy = {name: value for name, value in defaults.items() if name in POLICY}
    plain = {name: value for name, value in defaults.items() if name not in POLICY}
    system = plain.pop("system", None)
    if system is not None and isinstance(body["messages"], list):
        plain["messages"] = [{"role": "system", "content": system}, *body["messages"]]
    own = {name: value for name, value in body.items() if name not in {"vessel", "custom_id"}}
    if "messages" in plain:
        own.pop("messages")
    merged = plain | own
    if policy or "vessel" in body:
        given = body.get("vessel")
        merged["vessel"] = policy | given if isinstance(given, dict) else given or policy
    return merged
