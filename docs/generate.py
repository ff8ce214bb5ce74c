"""Write the parts of the documentation that the code already knows; `--check` fails where they have drifted."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import SecretStr
from typer.main import get_command

from vessel.cli.main import HELP, app
from vessel.jobs.model import TRANSITIONS, Transition
from vessel.observe.metrics import METRICS, Source
from vessel.settings import Settings
from vessel.settings.values import env_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vessel.wire import JobState

DOCS = Path(__file__).parent
NOTE = "<!-- Written by `make docs`; edit the code it is made of. -->\n"


def settings_page() -> str:
    """Make the table of variables: each field's docstring and default."""
    (tree,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(tree, ast.ClassDef)
    described: dict[str, str] = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{field.target.id} has no docstring"
            described[field.target.id] = str(ast.literal_eval(text.value))
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


def cli_page() -> str:
    """Make the reference of the command line: every command with its arguments and options."""
    group: Any = get_command(app)
    parts = [f"{NOTE}# The command line\n\n{HELP}\n"]
    for name, command in _commands(group):
        arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
        parts.append(f"## vessel {name}\n\n`vessel {' '.join([name, '[OPTIONS]', *arguments])}`\n")
        parts.append(inspect.cleandoc(command.help or "") + "\n")
        rows = [f"| {_option(p)} | {_meaning(p)} |" for p in command.params if p.name != "help"]
        parts.append("| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give every command by its whole name, those of a group in its place."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _option(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{_cell(param.metavar or param.name.upper())}`"
    names = ", ".join(f"`{name}`" for name in param.opts)
    choices = "|".join(map(str, get_args(param.type_descriptor.annotation))) if param.metavar is None else ""
    value = "" if param.is_flag else param.metavar or choices
    return f"{names} {_cell(value)}".strip()


def _meaning(param: Any) -> str:
    default = "" if param.default in {None, False} else f" Default: `{param.default}`."
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
