"""Flower behind one gate: nothing private can be shown, nothing but its health is open beside a login.

Flower keeps what events tell, and its API gives it out as it is. So events are reduced to what may be shown before
they are kept, by what Vessel's own messages look like; a text of any other form is replaced. Requests pass one check
before any handler sees them, because `/metrics` and unknown paths ask for no login by themselves.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import re
import socket
import sys
from ast import literal_eval
from typing import Any, NoReturn

import flower.command
import flower.events
import flower.inspector
from flower.app import Flower
from flower.views import BaseHandler

from vessel.dispatch.ticket import TASK_NAME
from vessel.errors import Unreachable
from vessel.observe import systemd
from vessel.settings.values import LOOPBACK

HIDDEN = "[hidden]"
OPEN_PATHS = frozenset({"/healthcheck"})
SUBMITTING = re.compile(r"/api/task/(apply|async-apply|send-task)/")
_ARGUMENTS = re.compile(r"job_[0-9a-f]{32}:\d+(\+\d+)?( [A-Za-z0-9_.-]{1,64} [A-Za-z0-9_.:/@#-]{1,128})?")
_TICKETS = re.compile(r"job_[0-9a-f]{32}")
_FAILURE = re.compile(r"TaskFailed\('[\w.<>]{1,120}( at [\w.]{1,120}:\d+)?'\)")
_WORD = re.compile(r"[A-Za-z0-9_.:/@#-]{0,128}")
_SECRET_FIELDS = ("args", "kwargs", "result", "exception", "traceback")
_REQUESTS = frozenset({"active", "reserved", "scheduled"})


def shown_arguments(text: object) -> str:
    """Return a message's arguments as they may be shown: job id, tier and model."""
    return text if isinstance(text, str) and _ARGUMENTS.fullmatch(text) else HIDDEN


def shown_result(text: object) -> str:
    """Say what became of a message's jobs, each with the model that served it, out of what the task returned."""
    if text is None or text == "":
        return ""
    try:
        ended = literal_eval(str(text))
        return ", ".join(f"{_known(one['state'])} on {_known(one['model'])}" for one in ended) or "dropped: not due"
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return HIDDEN


def _known(value: object) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError
    return value


def reduce_event(event: dict[str, Any]) -> dict[str, Any]:
    """Return a task's event with nothing in it that may not be shown. Reducing it again changes nothing."""
    found = dict(event)
    if found.get("args") is not None:
        found["args"] = shown_arguments(found["args"])
    if found.get("kwargs") not in (None, "", "{}"):
        found["kwargs"] = HIDDEN
    if found.get("result") is not None:
        found["result"] = shown_result(found["result"])
    if found.get("exception") and not _FAILURE.fullmatch(str(found["exception"])):
        found["exception"] = HIDDEN
    if found.get("traceback"):
        found["traceback"] = HIDDEN
    return found


class ReducedState(flower.events.EventsState):  # type: ignore[misc]  # Flower has no types
    """What Flower remembers: reduced events. Its class is named in the file it is kept in."""

    def event(self, event: dict[str, Any]) -> None:
        """Keep an event."""
        super().event(reduce_event(event) if str(event.get("type", "")).startswith("task-") else event)


def shown_task(task: Any) -> Any:
    """Flower's `format_task`: the same reduction for what is shown in pages, should a kept file be another's."""
    held = {name: getattr(task, name, None) for name in _SECRET_FIELDS}
    for name, value in reduce_shown(held).items():
        setattr(task, name, value)
    return task


def reduce_shown(held: dict[str, Any]) -> dict[str, Any]:
    """Reduce a kept task, whose result has been written out for people already."""
    result = held.pop("result", None)
    found = reduce_event(held)
    found["result"] = result if result is None or _is_shown(str(result)) else shown_result(result)
    return found


def _is_shown(text: str) -> bool:
    return text in {"", HIDDEN, "dropped: not due"} or all(
        re.fullmatch(r"[a-z_]{1,32} on [A-Za-z0-9_.:/@#-]{0,128}", part) for part in text.split(", ")
    )


class ReducedInspector(flower.inspector.Inspector):  # type: ignore[misc]  # Flower has no types
    """What workers answer about the messages they hold, reduced as events are."""

    def _on_update(self, workername: str, method: str, response: Any) -> None:
        if method in _REQUESTS and isinstance(response, list):
            response = [_reduce_request(request) for request in response]
        super()._on_update(workername, method, response)


def _reduce_request(given: Any) -> Any:
    held = given.get("request", given) if isinstance(given, dict) else {}
    ours = held.get("name") == TASK_NAME and _only_tickets(held.get("args"))
    kept = {**held, "args": held.get("args") if ours else HIDDEN, "kwargs": {} if not held.get("kwargs") else HIDDEN}
    return {**given, "request": kept} if "request" in given else kept


def _only_tickets(args: Any) -> bool:
    if isinstance(args, str):
        return shown_arguments(args) != HIDDEN
    try:
        return all(_TICKETS.fullmatch(job) and isinstance(generation, int) for job, generation in args[0])
    except (TypeError, ValueError, IndexError):
        return False


class Refusal(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """Answers what may not pass."""

    def initialize(self, status: int, text: str) -> None:
        """Take what to answer."""
        self._code, self._text = status, text

    def prepare(self) -> None:
        """Answer, whatever the method."""
        self.set_status(self._code)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        if self._code == 401:  # noqa: PLR2004  HTTP's word for "log in"
            self.set_header("WWW-Authenticate", 'Basic realm="Flower", charset="UTF-8"')
        self.finish(self._text)


class GatedFlower(Flower):  # type: ignore[misc]  # Flower has no types
    """Flower with one gate before every path."""

    def start_http_server(self) -> Any:
        """Listen, unless that would show Flower to others without a login, or let anybody steer workers."""
        options = self.options
        if not options.basic_auth and not options.auth:
            if not options.unix_socket and options.address not in LOOPBACK:
                _refuse(
                    f"Flower would listen on {options.address or 'every address'} without a login, so it was not "
                    "started. Name a file with user:password in VESSEL_FLOWER_AUTH_FILE, or use `vessel flower`, which "
                    "listens on 127.0.0.1.",
                    2,
                )
            if not options.read_only:
                _refuse(
                    "Flower may steer workers only behind a login, so it was not started. Name a file with "
                    "user:password in VESSEL_FLOWER_AUTH_FILE, or leave it read-only.",
                    2,
                )
        try:
            return super().start_http_server()
        except OSError as error:
            where = options.unix_socket or f"{options.address}:{options.port}"
            advice = "Choose another VESSEL_FLOWER_PORT or --port."
            _refuse(f"Flower cannot listen on {where}: {error.strerror}. {advice}", Unreachable.exit_code)

    def start(self) -> None:
        """Turn the loop, and tell systemd that it does."""
        options = self.options
        where = options.unix_socket or f"{options.address}:{options.port}"
        self.io_loop.add_callback(systemd.ready, f"listens on {where}")
        self.io_loop.spawn_callback(systemd.beat)
        super().start()

    def stop(self) -> None:
        """Tell systemd, and end."""
        systemd.stopping("ends")
        super().stop()

    def find_handler(self, request: Any, **kwargs: Any) -> Any:
        """Give a request to its handler, or refuse it."""
        refused = self._refusal(request)
        if refused is not None:
            status, text = refused
            return self.get_handler_delegate(request, Refusal, {"status": status, "text": text})
        return super().find_handler(request, **kwargs)

    def _refusal(self, request: Any) -> tuple[int, str] | None:
        prefix = f"/{self.options.url_prefix.strip('/')}" if self.options.url_prefix else ""
        path = request.path.removeprefix(prefix)
        if path in OPEN_PATHS:
            return None
        logins = self.options.basic_auth
        if logins and not _knows(logins, request.headers.get("Authorization", "")):
            return 401, "Flower asks for a login."
        if not logins and not self.options.auth and not _is_ours(request.host_name):
            return 400, "Flower without a login does not answer to this host name. Call it by its address."
        if SUBMITTING.match(path):
            return 403, "Jobs come in by `vessel submit`, the client or the REST API; Flower starts none."
        return None


def _current_user(handler: Any) -> Any:
    """Flower's own comparison fails for other letters than ASCII; with a login set, the gate has compared."""
    return True if handler.application.options.basic_auth else _FLOWERS_OWN(handler)


_FLOWERS_OWN = BaseHandler.get_current_user


def _knows(logins: list[str], header: str) -> bool:
    """Compare with every login in constant time."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        credentials = base64.b64decode(given.strip(), validate=True)
    except ValueError:
        return False
    return any([hmac.compare_digest(login.encode(), credentials) for login in logins])  # noqa: C419  all are compared


def _is_ours(host: str) -> bool:
    """Tell whether a host name cannot be one that a page has had lead here."""
    name = host.lower().strip("[]").rstrip(".")
    if name in {"localhost", socket.gethostname().lower()}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refuse(text: str, exit_code: int) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    raise SystemExit(exit_code)


def install() -> None:
    """Put the gate and the reduction into Flower, once, before it is built."""
    flower.command.Flower = GatedFlower
    flower.events.EventsState = ReducedState
    flower.app.Inspector = ReducedInspector
    BaseHandler.unauthenticated_api = False
    BaseHandler.get_current_user = _current_user
