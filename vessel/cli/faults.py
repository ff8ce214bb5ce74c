"""How a command ends: its exit code, one clear message on standard error, and with --json the same as a document.

0 done, 1 the job or check failed, 2 bad use or settings, 3 something needed is unreachable or missing, 130 interrupted.
"""

from __future__ import annotations

import functools
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from vessel.cli.output import ReaderLeft, complain, emit
from vessel.errors import JobNotFound, SettingsError, Unreachable, VesselError, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typer.exceptions import TyperException

P = ParamSpec("P")
T = TypeVar("T")
DONE, FAILED, BAD_USE, MISSING, INTERRUPTED = 0, 1, 2, 3, 130
SERVER_FAULT = 500


class Interrupted(BaseException):
    """The user wants the command to end. Its text says what goes on or was cancelled, if anything was begun."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is told of an error."""

    message: str
    code: str
    exit_code: int
    kind: str
    param: str | None = None


class BadUse(VesselError):
    """The command was not used as it can be."""

    code = "bad_use"
    http_status = 400
    exit_code = BAD_USE


def wants_json(arguments: Sequence[str]) -> bool:
    """Tell whether the command was asked for JSON, even if its other arguments are wrong."""
    before = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    return "--json" in before


def interruptible(command: Callable[P, T]) -> Callable[P, T]:
    """Let a command's interrupts and broken pipes through to `conclude`; typer would end on them without a word."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as stop:
            raise Interrupted(" ".join(getattr(stop, "__notes__", []))) from None
        except BrokenPipeError:
            raise ReaderLeft from None
        except ExceptionGroup as errors:  # a host of `vessel mcp` that was killed, met by several coroutines
            if errors.split(BrokenPipeError)[1] is not None:
                raise
            raise ReaderLeft from None

    return run


def conclude(command: Callable[[], int | None], *, as_json: bool) -> int:
    """Run a command and return its exit code; what it raises is told, and nothing shows a traceback."""
    from typer.exceptions import TyperException

    try:
        return command() or DONE
    except ReaderLeft:
        _forget_stdout()
        return DONE
    except Interrupted as stop:
        fault = Fault(f"Interrupted. {stop}".rstrip(), "interrupted", INTERRUPTED, "interrupted")
    except VesselError as error:
        fault = Fault(error.message, error.code, error.exit_code, error_type(error), error.param)
    except TyperException as error:
        fault = Fault(_usage(error), "bad_use", BAD_USE, "invalid_request_error")
    except OSError as error:
        text = f"{error.filename or 'The system'}: {error.strerror or type(error).__name__}."
        fault = Fault(text, "system_error", MISSING, "service_unavailable")
        _forget_stdout_if_broken()
    except Exception as error:  # noqa: BLE001  no traceback for users: its text may hold a prompt
        fault = Fault(_bug(error), "internal_error", FAILED, "api_error")
    _tell(fault, as_json=as_json)
    return fault.exit_code


def error_type(error: VesselError) -> str:
    """Name the kind of an error as OpenAI's `type` does."""
    if isinstance(error, SettingsError):
        return "settings_error"
    if isinstance(error, Unreachable):
        return "service_unavailable"
    if isinstance(error, JobNotFound):
        return "not_found_error"
    return "invalid_request_error" if error.http_status < SERVER_FAULT and error.exit_code == BAD_USE else "job_error"


def _tell(fault: Fault, *, as_json: bool) -> None:
    body = {"message": fault.message, "type": fault.kind, "code": fault.code, "param": fault.param}
    with suppress(ReaderLeft, OSError):  # a full disk under standard output may be what is to be told
        complain(fault.message if fault.exit_code == INTERRUPTED else f"vessel: {fault.message}")
    try:
        if as_json:
            emit({"error": body})
    except (ReaderLeft, OSError):
        _forget_stdout()


def _usage(error: TyperException) -> str:
    return error.format_message().replace(": Value error, ", ": ")


def _bug(error: Exception) -> str:
    return (
        f"Vessel met something it was not made for ({type(error).__name__} at {place_of(error)}) and stopped. "
        "Jobs that were accepted go on. Please report this line."
    )


def _forget_stdout_if_broken() -> None:
    """Give up a standard output that cannot take what was written: the interpreter would try it again at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _forget_stdout()


def _forget_stdout() -> None:
    """Let the interpreter's last flush go nowhere, or it would complain about the broken pipe."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
