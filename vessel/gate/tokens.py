r"""How many tokens a prompt will take: an estimate to reserve quota with, settled to Groq's own count afterwards.

A long text is counted exactly where the model's vocabulary is installed (vocabulary.py); a short one is not worth the
half second that loading it takes a fresh process. Elsewhere it is estimated by what a byte-pair tokenizer would likely
make one token of, class of characters by class. Against the vocabularies of gpt-oss and Llama 3 that gives 0.9-1.8 of
the true count on prose in Latin, Greek, Cyrillic, Arabic, Hebrew, Chinese, Japanese, Korean, Hindi and Thai, on code,
JSON, logs, CSV, hex and base64; 2.3 at most for scripts that only gpt-oss' vocabulary covers well. Random letters
without spaces are undercounted (0.5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vessel.gate.vocabulary import count, vocabulary_of

SHORT = 1024
"""Characters below which no vocabulary is worth loading: some 200 tokens too many at most, until they are settled."""

# Every match is about one token. A single space belongs to the word after it and costs nothing.
_PIECE = re.compile(
    r"""
      [A-Z]?[a-z]{1,5}                           # most short words are one token, long ones two or three
    | [A-Z]{1,2}
    | [0-9]{1,3}                                 # gpt-oss and Llama 3 split numbers in threes
    | [\r\n][ \t\r\n]{0,15}                      # a line's end with the next one's indentation
    | [ \t]{2,128}
    | [=*_~#-]{3,32}                             # ruled lines
    | [!-/:-@\[-`{-~]{1,2}                       # other punctuation
    | [\u0370-\u052f\u0590-\u06ff]{1,2}          # Greek, Cyrillic, Hebrew, Arabic
    | [\u0900-\u097f\u0e00-\u0e7f]{1,2}          # Devanagari, Thai
    | [\x00-\x08\x0b\x0c\x0e-\x1f\x7f]
    | [^\x00-\x7f]                               # accents, Chinese, Japanese, Korean and all other scripts
    """,
    re.VERBOSE,
)
_ASTRAL = re.compile(r"[^\u0000-\uffff]")
_ASTRAL_EXTRA = 2  # emoji: up to three tokens each
_BLOB = re.compile(r"[A-Za-z0-9+/]{40,}")
_BLOB_CHARS_PER_EXTRA = 8  # base64 and its like break into shorter pieces than words do

_SLICE = 1 << 16  # bounds the list of matches for prompts of a megabyte
_PER_MESSAGE = 4
_TEMPLATE = 75
"""What Groq's chat template adds to a prompt: gpt-oss answers `hi` with prompt_tokens above 70."""

_IMAGE = 2048
"""One image. Groq publishes no figure; vision models cut an image into at most about this many tokens."""


def estimate_tokens(
    messages: Sequence[Mapping[str, Any]],
    model: str | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> int:
    """Estimate the prompt tokens of a request; takes about 0.06 ms per kB, and less with a model's own vocabulary.

    This is the only door to token counting. Texts below SHORT characters are always estimated. Without `model`
    nobody knows whose vocabulary counts, so texts are estimated by classes. Images and the chat template are
    estimates in either case.
    """
    total = _TEMPLATE + sum(_PER_MESSAGE + _message(message, model) for message in messages)
    return total + (_text(_dump(tools), model) if tools else 0)


def counts_alike(one: str | None, other: str | None) -> bool:
    """Tell whether texts for these models are counted by the same vocabulary, or both by none."""
    return vocabulary_of(one) == vocabulary_of(other)


def max_prompt_tokens(body_bytes_len: int) -> int:
    """Return more prompt tokens than a body of that many bytes can have: one per byte, and the template's own.

    Not for images given by URL, nor for what built-in tools add while they run: neither is in the body.
    """
    return body_bytes_len + _TEMPLATE


def _message(message: Mapping[str, Any], model: str | None) -> int:
    total = 0
    for key, value in message.items():
        if key == "content" and isinstance(value, list):
            total += sum(_part(part, model) for part in value)
        elif isinstance(value, str):
            total += _text(value, model) if key != "role" else 0
        elif value is not None:
            total += _text(_dump(value), model)
    return total


def _part(part: Any, model: str | None) -> int:
    if not isinstance(part, Mapping):
        return _text(_dump(part), model)
    if "image" in str(part.get("type")):
        return _IMAGE
    text = part.get("text")
    return _text(text if isinstance(text, str) else _dump(part), model)


def _text(text: str, model: str | None) -> int:
    exact = count(text, model) if len(text) >= SHORT else None
    return _by_classes(text) if exact is None else exact


def _by_classes(text: str) -> int:
    if len(text) > _SLICE:
        return sum(_by_classes(text[at : at + _SLICE]) for at in range(0, len(text), _SLICE))
    pieces = len(_PIECE.findall(text)) + sum(len(run) for run in _BLOB.findall(text)) // _BLOB_CHARS_PER_EXTRA
    return pieces if text.isascii() else pieces + _ASTRAL_EXTRA * len(_ASTRAL.findall(text))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
