"""Scripts keep their header's contract: what they touch is named, what is named is used, and no state is in them."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING

import pytest

from vessel.keyspace.script import load, script_names
from vessel.wire import JobState

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

FOLDER = resources.files("vessel.keyspace").joinpath("lua")
SCRIPTS = script_names()
CALL = re.compile(r"redis\.call\(\s*'(\w+)'\s*(?:,\s*([^,)]+))?")
KEYLESS = {"TIME", "PUBLISH"}  # a channel is no key
FORBIDDEN = {"KEYS", "SCAN", "SSCAN", "HSCAN", "ZSCAN", "FLUSHALL", "FLUSHDB", "EVAL", "CONFIG", "SELECT"}


def files() -> list[Traversable]:
    """List scripts and includes."""
    return [f for place in (FOLDER, FOLDER / "include") for f in place.iterdir() if f.name.endswith(".lua")]


def code(text: str) -> str:
    """Leave the comments out."""
    return re.sub(r"--.*", "", text)


def source(name: str) -> str:
    """Read a script without its includes."""
    return FOLDER.joinpath(f"{name}.lua").read_text("utf-8")


def includes(name: str) -> dict[str, str]:
    """Read the includes a script asks for."""
    asked = re.findall(r"^-- include: (\w+)$", source(name), re.MULTILINE)
    return {inc: FOLDER.joinpath("include", f"{inc}.lua").read_text("utf-8") for inc in asked}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_header_says_what_a_script_does_takes_and_returns(name: str) -> None:
    """The first line is a sentence; KEYS and Returns are there, and names are not repeated."""
    lines = source(name).splitlines()
    assert re.fullmatch(r"-- [A-Z].*[.,:]?.*", lines[0])
    assert not lines[0].startswith(("-- KEYS", "-- ARGV"))
    assert any(line.startswith("-- KEYS: ") for line in lines)
    assert any(line.startswith("-- Returns: ") for line in lines)
    script = load(name)
    assert len(set(script.keys + script.args)) == len(script.keys + script.args)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_name_of_a_header_is_used(name: str) -> None:
    """A key or an argument that is asked for and not used would be a lie; an open end is read by its index."""
    script, body = load(name), code(source(name))
    assert [n for n in script.keys + script.args if not re.search(rf"\b{n}\b", body)] == []
    assert not script.open_keys or re.search(r"MORE_KEYS|#KEYS", body)
    assert not script.open_args or "MORE_ARGS" in body


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_index_is_counted_by_hand(name: str) -> None:
    """Arguments have names; a new one in the header must not shift what comes after it."""
    body = code(source(name))
    assert not re.search(r"(KEYS|ARGV)\[\d+\]|\b[ik] = [2-9]\d*, #", body)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_include_is_used(name: str) -> None:
    """An include is there for a function that the script, or another include, calls."""
    for inc, text in includes(name).items():
        others = code(source(name)) + "".join(code(t) for other, t in includes(name).items() if other != inc)
        assert [f for f in re.findall(r"local function (\w+)", text) if re.search(rf"\b{f}\(", others)], inc


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_key_comes_from_keys(name: str) -> None:
    """Redis is told in advance what a script touches; a name made up inside would be out of its sight."""
    script = load(name)
    for command, key in CALL.findall(code(source(name))):
        assert command in KEYLESS or key in {*script.keys, "KEYS[k]"}, f"{command} {key}"


@pytest.mark.parametrize("name", sorted({f.name for f in (FOLDER / "include").iterdir()}))
def test_an_include_takes_its_keys_as_parameters(name: str) -> None:
    """A function touches the keys it is given, or those at the end of KEYS."""
    text = code(FOLDER.joinpath("include", name).read_text("utf-8"))
    for function in re.split(r"^local function ", text, flags=re.MULTILINE)[1:]:
        parameters = set(re.split(r"\W+", function[function.index("(") + 1 : function.index(")")]))
        for command, key in CALL.findall(function):
            assert command in KEYLESS or key == "KEYS[k]" or key.partition(".")[0] in parameters, f"{command} {key}"


@pytest.mark.parametrize("file", files(), ids=lambda f: f.name)
def test_no_command_is_slow_dangerous_or_missing_in_fakeredis(file: Traversable) -> None:
    """No walk over all keys, no cmsgpack and sha1hex, no pcall that would hide an error, no clock but Redis' own."""
    text = code(file.read_text("utf-8"))
    assert not {command for command, _ in CALL.findall(text)} & FORBIDDEN
    assert not re.search(r"cmsgpack|sha1hex|redis\.pcall|os\.(time|clock)|math\.random", text)
    assert len(re.findall(r"redis\.call", text)) == len(CALL.findall(text)), "a command's name must be written out"


@pytest.mark.parametrize("file", files(), ids=lambda f: f.name)
def test_no_script_names_a_state(file: Traversable) -> None:
    """States come as arguments from the one table."""
    text = code(file.read_text("utf-8"))
    assert [state for state in JobState if re.search(rf"""['"]{state}['"]""", text)] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_sets_a_global(name: str) -> None:
    """Every assignment is to a local or into a table of its own; Redis refuses the rest at run time."""
    script = load(name)
    text = code(script.text)
    while (flat := re.sub(r"\{[^{}]*\}", "", text)) != text:  # the fields of tables are no variables
        text = flat
    local = set(re.findall(r"local function (\w+)", text))
    for names in re.findall(r"\blocal (?!function)([\w, ]+)", text) + re.findall(r"\bfor ([\w, ]+?) (?:=|in)", text):
        local |= set(re.split(r"[ ,]+", names))
    local |= {p for params in re.findall(r"function \w+\(([^)]*)\)", text) for p in re.split(r"[ ,]+", params)}
    assigned = {a for names in re.findall(r"^\s*([\w, ]+?) = ", text, re.MULTILINE) for a in re.split(r"[ ,]+", names)}
    assert assigned - local <= {"for", "local"}


def test_a_call_must_give_exactly_the_names_of_the_header() -> None:
    """Missing and unknown names, and more than the header leaves open, are refused before anything is sent."""
    role = load("role")
    with pytest.raises(TypeError, match=r"missing \['role', 'lease_ms'\]"):
        role.call({}, {"owner": "a"}, str)
    with pytest.raises(TypeError, match=r"unknown \['color'\]"):
        role.call({"role": "r"}, {"owner": "a", "lease_ms": 1, "color": "red"}, str)
    with pytest.raises(TypeError):
        role.call({"role": "r"}, {"owner": "a", "lease_ms": 1}, str, more_keys=["x"])
    with pytest.raises(TypeError):
        role.call({"role": "r"}, {"owner": "a", "lease_ms": 1}, str, more_args=["x"])


def test_a_call_is_one_evalsha() -> None:
    """Keys are counted, then come the keys, then the arguments, each in the header's order."""
    beat = load("heartbeat").call(
        {"slots": "s"}, {"slots_here": 9, "silent_ms": 5, "worker": "w"}, str, more_keys=["a"]
    )
    assert beat.command == ("EVALSHA", beat.script.sha if beat.script else "", 2, "s", "a", "w", 5, 9)
