"""Write the parts of the documentation that the code already knows; `--check` fails where they have drifted."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import SecretStr
from typer.main import get_command

from vessel import __version__
from vessel.cli.commands.examples import EXAMPLES
from vessel.cli.faults import BAD_USE, DONE, FAILED, INTERRUPTED, MISSING
from vessel.cli.main import NAME, app
from vessel.cli.simulated import SIMULATOR_FILE
from vessel.jobs.model import TRANSITIONS, Transition
from vessel.observe.metrics import METRICS, Source
from vessel.settings import SERVER_FILE, Settings
from vessel.settings.values import env_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vessel.wire import JobState

DOCS = Path(__file__).parent
NOTE = "<!-- Written by `make docs`; edit the code it is made of. -->\n"


def _described() -> dict[str, str]:
    """Read the docstring of each setting, in their order."""
    (tree,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(tree, ast.ClassDef)
    described: dict[str, str] = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{field.target.id} has no docstring"
            described[field.target.id] = str(ast.literal_eval(text.value))
    return described


def settings_page() -> str:
    """Make the table of variables: each field's docstring and default."""
    described = _described()
    rows = [
        f"| `{env_name(name)}` | {described[name]} | {_default(name, info.default)} |"
        for name, info in Settings.model_fields.items()
    ]
    head = "# Settings\n\nRead from the environment at start; every fault is reported at once. Empty counts as unset.\n"
    return f"{NOTE}{head}\n| variable | meaning | default |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _default(name: str, default: object) -> str:
    if default is None or isinstance(default, SecretStr):
        return "unset"
    if isinstance(default, bool):
        return "`on`" if default else "`off`"
    return "`./var`" if name == "data_dir" else f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def sources_of(edge: Transition) -> list[JobState | None]:
    """List where an edge starts; None where a job begins."""
    return [*sorted(edge.sources)] or [None]


def state_page() -> str:
    """Make the diagram and the table of a job's states."""
    edges = [
        f"    {source or '[*]'} --> {target}: {verb}"
        for verb, edge in TRANSITIONS.items()
        for source in sources_of(edge)
        for target in sorted(edge.leads(source) if source else edge.targets)
    ]
    rows = [
        f"| {verb} | {', '.join(sorted(edge.sources)) or '-'} | {', '.join(sorted(edge.targets))} | {edge.note} |"
        for verb, edge in TRANSITIONS.items()
    ]
    return (
        f"{NOTE}# The states of a job\n\n```mermaid\nstateDiagram-v2\n"
        + "\n".join(edges)
        + "\n```\n\n| verb | from | to | note |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def metrics_page() -> str:
    """Make the table of metrics, by who exports them."""
    parts = [f"{NOTE}# Metrics\n\nWhere they are served, and what to do with them: [observe.md](observe.md).\n"]
    for source in Source:
        rows = [f"| `{m.name}` | {m.kind} | {_labels(m.labels)} | {m.help} |" for m in METRICS if m.source is source]
        parts.append(
            f"## {source}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def _labels(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# --- the reference of the command line, as a page and as a man page ---------------------------------------------------

SYNOPSIS = "vessel COMMAND [OPTIONS] [ARGUMENTS]"
STREAMS = (
    "Answers and tables go to standard output, everything else to standard error. With `--json` every command writes "
    "one JSON document, or one per line; an error is then a document on standard output as well: "
    '`{"error": {"message", "type", "code", "param"}}`. Times for people are local and name their zone; in JSON they '
    "are UTC. `-` in the place of a text or a file is standard input. Ctrl-C says what becomes of the work."
)
LEAD = "The same as a man page: `man vessel` where Vessel is installed, else `man vessel/cli/vessel.1`."
COMMON = (
    "Beside those below every command has `--help` (`-h`). `$job`, `$batch` and `$key` in the examples stand for ids."
)
EXITS = {
    DONE: "done",
    FAILED: "the job or the check failed, or a wait ended by its time",
    BAD_USE: "bad use or settings; nothing was done",
    MISSING: "something needed is unreachable or missing: Redis, a worker, a key, Groq",
    INTERRUPTED: "interrupted by Ctrl-C",
}
FILES = {
    SERVER_FILE: "where the Redis of a running `vessel up` is, so that other commands in the same folder find it",
    SIMULATOR_FILE: "where its simulator is",
    "redis/": "data of the embedded server",
    "usage_log.jsonl": "a line for each call that was charged; `VESSEL_USAGE_LOG` puts it elsewhere",
    "spool/": "answers that could not be written to Redis yet; kept until they are",
    "flower/": "what Flower remembers",
}
ELSEWHERE = {
    "TZ": "The zone of times for people, and of those that are read without a zone.",
    "COLUMNS": "How wide tables are on a terminal.",
    "NO_COLOR": "Set to anything: no colours.",
}
WORKFLOW = """vessel up --sim                                      # in another terminal; with a key leave out --sim
job=$(vessel submit "Name three uses of copper.")
vessel wait "$job" && vessel job "$job"
vessel submit --file work.jsonl | vessel wait - --json
"""


def cli_page() -> str:
    """Make the reference of the command line, in the sections of a man page."""
    group: Any = get_command(app)
    commands = list(_commands(group))
    parts = [
        f"{NOTE}# vessel(1)\n\n{LEAD}\n",
        f"## NAME\n\nvessel - {NAME}\n",
        f"## SYNOPSIS\n\n```text\n{SYNOPSIS}\nvessel COMMAND --help\nvessel --version\n```\n",
        f"## DESCRIPTION\n\n{STREAMS}\n",
        _table("command", ((f"[{name}](#vessel-{name.replace(' ', '-')})", _first(c.help)) for name, c in commands)),
        f"## OPTIONS\n\n{COMMON}\n",
    ]
    for name, command in commands:
        parts += [f"### vessel {name}\n\n`{_usage(name, command)}`\n", inspect.cleandoc(command.help or "") + "\n"]
        parts.append(_table("option", ((_option(p), _meaning(p)) for p in _params(command))))
        parts.append("```sh\n" + "\n".join(EXAMPLES[name]) + "\n```\n")
    parts += [
        "## EXIT STATUS\n",
        _table("code", ((str(code), text) for code, text in EXITS.items())),
        "## ENVIRONMENT\n\nDefaults: [settings.md](settings.md).\n",
        _table("variable", ((f"`{name}`", text) for name, text in _variables())),
        "## FILES\n\nIn the data directory, `./var` or `VESSEL_DATA_DIR`:\n",
        _table("file", ((f"`{name}`", text) for name, text in FILES.items())),
        f"## EXAMPLES\n\n<!-- not run: its first command stays in the foreground -->\n```sh\n{WORKFLOW}```\n",
        "## SEE ALSO\n\n" + "".join(f"- [{title}]({page})\n" for page, title in _guides()),
    ]
    return "\n".join(parts)


def man_page() -> str:
    """Make the same in roff."""
    group: Any = get_command(app)
    parts = [f'.\\" {NOTE[5:-5]}\n.TH VESSEL 1 "" "vessel {__version__}"']
    parts += [".SH NAME", _roff(f"vessel - {NAME}"), ".SH SYNOPSIS", f".B {_roff(SYNOPSIS)}"]
    parts += [".SH DESCRIPTION", _roff(STREAMS), ".SH COMMANDS"]
    for name, command in _commands(group):
        parts += [
            f'.SS "{_roff(_usage(name, command))}"',
            _roff(" ".join(inspect.cleandoc(command.help or "").split())),
        ]
        parts += [line for p in _params(command) for line in (".TP", _roff(_option(p)), _roff(_meaning(p)))]
        parts += [".PP", ".EX", *(_roff(example) for example in EXAMPLES[name]), ".EE"]
    for head, rows in (
        ("EXIT STATUS", {str(code): text for code, text in EXITS.items()}),
        ("ENVIRONMENT", dict(_variables())),
        ("FILES", {f"var/{name}": text for name, text in FILES.items()}),
    ):
        parts += [f".SH {head}", *(line for name, text in rows.items() for line in (".TP", _roff(name), _roff(text)))]
    parts += [".SH EXAMPLES", ".EX", *(_roff(line) for line in WORKFLOW.splitlines()), ".EE"]
    parts += [".SH SEE ALSO", _roff("celery(1), redis-server(1); the guides in docs/ of the source.")]
    return "\n".join(parts) + "\n"


def _roff(text: str) -> str:
    """Escape what means something to roff, and set what is code in bold."""
    text = text.replace("\\|", "|").replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _guides() -> Iterator[tuple[str, str]]:
    for page in sorted(DOCS.glob("*.md")):
        if page.name != "cli.md":
            yield page.name, next(line[2:] for line in page.read_text("utf-8").splitlines() if line.startswith("# "))


def _variables() -> Iterator[tuple[str, str]]:
    yield from ((env_name(name), text) for name, text in _described().items())
    yield from ELSEWHERE.items()


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give every command by its whole name, those of a group in its place."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _usage(name: str, command: Any) -> str:
    arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
    return " ".join(["vessel", name, "[OPTIONS]", *arguments])


def _params(command: Any) -> Iterator[Any]:
    return (param for param in command.params if param.name != "help")


def _first(text: str | None) -> str:
    """Give the first sentence of a help text, without its full stop."""
    return inspect.cleandoc(text or "").replace("\n", " ").split(". ")[0].removesuffix(".")


def _table(head: str, rows: Iterable[tuple[str, str]]) -> str:
    return f"| {head} | meaning |\n|---|---|\n" + "\n".join(f"| {name} | {text} |" for name, text in rows) + "\n"


def _option(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{_cell(param.metavar or param.name.upper())}`"
    names = ", ".join(f"`{name}`" for name in param.opts)
    choices = "|".join(map(str, get_args(param.type_descriptor.annotation))) if param.metavar is None else ""
    value = "" if param.is_flag else param.metavar or choices
    return f"{names} {_cell(value)}".strip()


def _meaning(param: Any) -> str:
    default = "" if param.default in {None, False, ""} else f" Default: `{param.default}`."
    return _cell(param.help or "") + default


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the pages, or compare them."""
    drifted = []
    pages = {
        "settings.md": settings_page(),
        "state.md": state_page(),
        "cli.md": cli_page(),
        "metrics.md": metrics_page(),
        "../vessel/cli/vessel.1": man_page(),
    }
    for name, text in pages.items():
        page = DOCS / name
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        drifted.append(name)
        if "--check" not in sys.argv:
            page.write_text(text, encoding="utf-8")
    if drifted and "--check" in sys.argv:
        sys.exit(f"docs/ has drifted from the code in {', '.join(drifted)}. Run: make docs")


if __name__ == "__main__":
    main()
