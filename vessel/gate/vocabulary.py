"""Exact token counts by the model's own vocabulary, where the extra `tokenizer` is installed.

quicktok carries its vocabularies in the package, so nothing is ever downloaded. The first count of a model loads its
vocabulary: 0.3 to 0.7 s and 40 to 90 MB, once per process; after that a megabyte takes a few hundredths of a second.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_VOCABULARIES = (
    (re.compile(r"gpt-oss(-|$)"), "o200k_harmony"),
    (re.compile(r"(meta-)?llama-?3([-.]|$)"), "llama3"),
    # Not qwen3.5 and later, which have a larger vocabulary of their own.
    (re.compile(r"qwen-?(2\.5|3)(-|$)"), "qwen3"),
)
"""Whose names begin like this, behind the vendor's prefix. Llama 4, Kimi and Compound's models are in no package."""


def count(text: str, model: str | None) -> int | None:
    """Count a text's tokens; None where there is no exact tokenizer for the model, or none is installed.

    Names of special tokens in a text (`<|end|>`) count as the plain text they are. Half a surrogate pair counts as a
    question mark, since no tokenizer can take it.
    """
    name = vocabulary_of(model)
    counter = _load(name) if name else None
    return None if counter is None else counter(text.encode("utf-8", "replace"))


def vocabulary_of(model: str | None) -> str | None:
    """Name the vocabulary of a model; None for a model that is not named or whose vocabulary is not to be had."""
    bare = (model or "").lower().rpartition("/")[2]
    return next((name for pattern, name in _VOCABULARIES if pattern.match(bare)), None)


@cache
def _load(name: str) -> Callable[[bytes], int] | None:
    try:
        import quicktok  # type: ignore[import-untyped]  # noqa: PLC0415  an extra; who counts with it pays its load

        counter: Callable[[bytes], int] = quicktok.get_encoding(name).count
    except (ImportError, OSError, RuntimeError):  # not installed, or installed without this vocabulary
        return None
    return counter
