"""What a process speaks: its version, and a digest of the scripts that it runs on shared keys."""

from __future__ import annotations

import hashlib
from functools import cache

from vessel import __version__
from vessel.keyspace.script import load, script_names

DIGEST = 8


@cache
def release() -> str:
    """Name this installation, as `0.1.0+3f9a1c20`: two of the same name run the same scripts.

    Processes of two releases may work side by side, as each brings its own scripts; `vessel doctor` tells of them.
    """
    texts = hashlib.sha256("".join(load(name).sha for name in script_names()).encode())
    return f"{__version__}+{texts.hexdigest()[:DIGEST]}"
