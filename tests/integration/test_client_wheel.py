"""What is installed: the wheel and the source archive hold everything, and a clean environment runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALIAS = "vessel/alias/"
USE = """
import sys
sys.path.insert(0, sys.argv[1])
import groq_vessel, vessel, workers
from groq_vessel import AsyncGroqClient, GroqClient, GroqCompound, analyze, generate_code, query, research
from importlib.resources import files
from vessel.keyspace.script import load
for package in (groq_vessel, vessel, workers):
    assert package.__file__.startswith(sys.argv[1]), package.__file__
    assert files(package).joinpath("py.typed").is_file()
for script in files("vessel.keyspace").joinpath("lua").iterdir():
    if script.name.endswith(".lua"):
        assert load(script.name.removesuffix(".lua")).text
plan = GroqClient(data_dir=sys.argv[2]).route("Is it all there?")
print(plan.tier, plan.model)
"""


def _shipped() -> set[str]:
    """Name what the packages consist of, as they are imported."""
    found = (path for top in ("vessel", "workers") for path in (ROOT / top).rglob("*") if path.is_file())
    names = {str(path.relative_to(ROOT)) for path in found if path.suffix != ".pyc"}
    return {name.removeprefix(ALIAS) for name in names}


def _build(kind: str, folder: Path) -> Path:
    command = (sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder))
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, without an index."""
    pytest.importorskip("hatchling")
    return _build("wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_and_nothing_else(wheel: Path) -> None:
    """Scripts, registry, demo, pages and type markers are in it; `groq_vessel` is at its top, the tests are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (manual,) = {name for name in names if ".data/" in name}
        told = {
            name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name
        }
    assert names - {manual} == _shipped()
    assert manual.endswith(".data/data/share/man/man1/vessel.1")
    assert {"vessel/keyspace/lua/create.lua", "vessel/registry/models.toml", "vessel/cli/demo/batch.jsonl"} <= names
    assert {"vessel/py.typed", "groq_vessel/py.typed", "groq_vessel/__init__.py"} <= names
    assert "vessel = vessel.cli.main:main" in told["entry_points.txt"]
    assert "License-Expression: MIT" in told["METADATA"]
    assert str(ROOT) not in "".join(told.values())


def test_the_wheel_is_imported_as_it_is(wheel: Path, tmp_path: Path) -> None:
    """Even unpacked by nobody it finds its scripts and its registry, and routes a request."""
    command = (sys.executable, "-W", "error", "-c", USE, str(wheel), str(tmp_path))
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"ultra_fast \S+\n", done.stdout)


def test_the_source_archive_holds_what_it_takes_to_build_and_test(tmp_path: Path) -> None:
    """Packages, tests, licence and pins are in it."""
    pytest.importorskip("hatchling")
    with tarfile.open(_build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    source = {f"{ALIAS}{name}" if name.startswith("groq_vessel/") else name for name in _shipped()}
    assert source <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "tests/conftest.py"} <= names


@pytest.mark.system
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_clean_environment_runs_what_is_installed(kind: str, tmp_path: Path) -> None:
    """`pip install` of what was built gives the import, the command, and a demonstration in which every check holds."""
    built = _build(kind, tmp_path / "dist")
    venv.create(tmp_path / "venv", with_pip=True)
    there = tmp_path / "venv" / "bin"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str) -> str:
        done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(str(there / "pip"), "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(built))
    told = run(
        str(there / "python"), "-c", "import groq_vessel; from groq_vessel import *; print(groq_vessel.__file__)"
    )
    assert told.startswith(str(tmp_path / "venv"))
    assert "submit" in run(str(there / "vessel"), "--help")
    assert "checks hold" in run(str(there / "vessel"), "demo")
