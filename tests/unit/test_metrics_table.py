"""One table of metrics: what is built, documented, drawn and alerted on is in it, and labels are bounded."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from vessel.observe.metrics import METRICS, Instruments, Kind, Source

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
SERIES = {name: metric for metric in METRICS for name in metric.series}
LABELS = {
    "tier",
    "model",
    "limit",
    "lane",
    "place",
    "reason",
    "outcome",
    "kind",
    "method",
    "route",
    "status",
    "state",
    "cap",
    "used",
}
ADDED = {"instance", "job", "le"}
"""By Prometheus itself."""
PROMTOOL = shutil.which("promtool")
CONFIG = ("check", "config", "--syntax-only", "prometheus.yml")
"""Without its secrets, which are elsewhere."""


def expressions() -> list[tuple[str, str]]:
    """List every query of the dashboard and the alerts, with where it stands."""
    dashboard: Any = json.loads((OPS / "grafana" / "vessel.json").read_text("utf-8"))
    found = [(panel["title"], t["expr"]) for panel in dashboard["panels"] for t in panel.get("targets", ())]
    alerts = (OPS / "alerts.yml").read_text("utf-8")
    for part in re.split(r"^      - alert: ", alerts, flags=re.MULTILINE)[1:]:
        expr = re.search(r"expr:(.*?)\n        (?:for|labels):", part, re.DOTALL)
        assert expr, part
        found.append((part.split()[0], expr[1]))
    return found


@pytest.mark.parametrize(("where", "expr"), expressions())
def test_a_query_asks_for_series_and_labels_of_the_table(where: str, expr: str) -> None:
    """A renamed metric or a label that it does not have would leave a panel empty and an alert silent."""
    names = re.findall(r"\b(vessel_[a-z0-9_]+)", expr)
    assert names or re.search(r"\bup\{", expr), where
    assert [name for name in names if name not in SERIES] == []
    allowed = ADDED.union(*(SERIES[name].labels for name in names))
    grouped = [
        label.strip() for group in re.findall(r"\b(?:by|without|on) \(([^)]*)\)", expr) for label in group.split(",")
    ]
    matched = re.findall(r"([a-z_]+)(?:=~|!~|!=|=)\"", expr)
    assert [label for label in (*grouped, *matched) if label and label not in allowed] == []


def test_every_metric_is_drawn_or_alerted_on() -> None:
    """What nobody looks at is not worth its cost; these few are for looking things up."""
    asked = {name for _, expr in expressions() for name in re.findall(r"\bvessel_[a-z0-9_]+", expr)}
    looked_up = {"vessel_limit_capacity", "vessel_limit_left", "vessel_worker_info"}
    assert {m.name for m in METRICS if not m.series & asked} == looked_up


def test_names_and_labels_follow_prometheus_and_are_bounded() -> None:
    """Counters end in _total, nothing else does; no label can hold an id, a tenant or a text of a caller."""
    assert len({m.name for m in METRICS}) == len(METRICS)
    assert all(m.name.endswith("_total") == (m.kind is Kind.COUNTER) for m in METRICS)
    assert set().union(*(m.labels for m in METRICS)) - LABELS == {"tiers"}
    assert all(m.buckets == tuple(sorted(set(m.buckets))) and m.buckets for m in METRICS if m.kind is Kind.HISTOGRAM)


def test_the_table_makes_what_it_says() -> None:
    """Every row becomes a series with its help, and none says when it was made."""
    told = Instruments(*Source)
    for metric in METRICS:
        if metric.kind is Kind.COUNTER:
            told.count(metric.name, *("x" for _ in metric.labels))
        elif metric.kind is Kind.GAUGE:
            told.set(metric.name, 1, *("x" for _ in metric.labels))
        else:
            told.observe(metric.name, -1, *("x" for _ in metric.labels))
    text = generate_latest(told.registry).decode()
    seen = set(re.findall(r"^(vessel_\w+)", text, re.MULTILINE))
    assert seen == set(SERIES)
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert [m.name for m in METRICS if f"| `{m.name}` | {m.kind} |" not in page] == []


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH; `make test-system` fetches it")
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml"), CONFIG],
)
def test_promtool_accepts(arguments: tuple[str, ...]) -> None:
    """Rules parse, fire when their tests say and not before, and the configuration is one."""
    checked_by_promtool(str(PROMTOOL), arguments)


@pytest.mark.system
def test_a_fetched_promtool_accepts_everything(tmp_path: Path) -> None:
    """The same where promtool is not installed, and what a worker and the API expose lints."""
    tool = PROMTOOL or fetched(tmp_path)
    for arguments in (
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        CONFIG,
    ):
        checked_by_promtool(tool, arguments)
    text = generate_latest(Instruments(*Source).registry)
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def checked_by_promtool(tool: str, arguments: tuple[str, ...]) -> None:
    """Run promtool in ops/."""
    done = subprocess.run([tool, *arguments], cwd=OPS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def fetched(folder: Path) -> str:
    """Fetch Debian's prometheus package without installing it; skip where that cannot be had."""
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
    if apt is None or dpkg is None:
        pytest.skip("promtool is not on PATH, and there is no apt-get to fetch it with")
    subprocess.run([apt, "download", "prometheus"], cwd=folder, capture_output=True, check=False)
    packages = list(folder.glob("prometheus_*.deb"))
    if not packages:
        pytest.skip("promtool is not on PATH, and apt-get cannot download the package prometheus")
    subprocess.run([dpkg, "-x", str(packages[0]), str(folder / "out")], check=True)
    return str(folder / "out" / "usr" / "bin" / "promtool")
