"""Where an answer with built-in tools came from: the pages its tools found and it cites, and its citation marks.

What a message holds of that differs by model and is all optional (groq-facts 5): `executed_tools` with results in
fields or only in the text that the tool showed the model, `annotations`, and marks like `【1†L3-L8】` in the text of
gpt-oss, which cite lines of a page that its browser showed and mean nothing to a reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MARK = re.compile(r"[ \u00a0\u202f]?【\d{1,6}†[^】\n]{0,200}】")
_BEGUN = re.compile(r"[ \u00a0\u202f]?(?:【(?:\d{1,6}(?:†[^】\n]{0,200})?)?)?\Z")
_SHOWN = re.compile(r"^\[\d{1,6}\] (?P<title>.*) \((?P<url>https?://\S+)\)\s*$", re.MULTILINE)
_LISTED = re.compile(
    r"^Title: (?P<title>.*)\nURL: (?P<url>https?://\S+)(?:\n(?:Content: )?(?P<content>.+))?", re.MULTILINE
)
_RESULTS = ("search_results", "browser_results")


@dataclass(frozen=True, slots=True)
class Source:
    """A page that a search tool found or an answer cites; `score` is the search's own, where it tells one."""

    url: str
    title: str = ""
    content: str = ""
    score: float | None = None

    @property
    def snippet(self) -> str:
        """What the search showed of the page."""
        return self.content


def executed_tools(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a message says of the built-in tools that ran; what is no object there is left out."""
    tools = message.get("executed_tools")
    return [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []


def sources_of(message: Mapping[str, Any]) -> list[Source]:
    """Return the pages of a message, each once with all that is told: in the order of its tools, then as it cites."""
    found: dict[str, Source] = {}
    for source in (*_found(executed_tools(message)), *_cited(message.get("annotations"))):
        key = _key(source.url)
        known = found.get(key)
        found[key] = source if known is None else _fuller(known, source)
    return list(found.values())


def without_marks(text: str) -> str:
    """Return a text without the citation marks of gpt-oss."""
    return _MARK.sub("", text)


class MarkFilter:
    """Takes citation marks out of a text in pieces; what may become a mark is held back until it is clear."""

    def __init__(self) -> None:
        """Begin with nothing held."""
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take the next piece and return what is clear by now."""
        text = without_marks(self._held + piece)
        begun = _BEGUN.search(text)
        at = begun.start() if begun else len(text)
        self._held = text[at:]
        return text[:at]

    def end(self) -> str:
        """Return what was held back and has become no mark."""
        held, self._held = self._held, ""
        return held


def _found(tools: Iterable[Mapping[str, Any]]) -> Iterator[Source]:
    for tool in tools:
        told = [source for name in _RESULTS for source in _pages(tool.get(name))]
        yield from told or _shown(tool.get("output"))


def _pages(held: object) -> Iterator[Source]:
    pages = held.get("results") if isinstance(held, dict) else held
    for page in pages if isinstance(pages, list) else ():
        if isinstance(page, dict):
            yield from _page(page)


def _page(page: Mapping[str, Any]) -> Iterator[Source]:
    url, score = page.get("url"), page.get("score")
    if not isinstance(url, str) or not _is_web(url):
        return
    content = next((page[name] for name in ("content", "snippet", "text") if isinstance(page.get(name), str)), "")
    known = isinstance(score, (int, float)) and not isinstance(score, bool)
    yield Source(url, _text(page.get("title")), content, float(score) if known and score is not None else None)


def _shown(output: object) -> Iterator[Source]:
    """Read pages off what a tool showed the model, where the answer has no fields for them."""
    if not isinstance(output, str):
        return
    for pattern in (_LISTED, _SHOWN):
        for match in pattern.finditer(output):
            told = match.groupdict()
            if _is_web(told["url"]):
                yield Source(told["url"], told["title"].strip(), (told.get("content") or "").strip())


def _cited(annotations: object) -> Iterator[Source]:
    for note in annotations if isinstance(annotations, list) else ():
        if isinstance(note, dict):
            for part in (note, *(value for value in note.values() if isinstance(value, dict))):
                yield from _page(part)


def _fuller(known: Source, again: Source) -> Source:
    score = again.score if known.score is None else known.score
    return replace(known, title=known.title or again.title, content=known.content or again.content, score=score)


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)


def _key(url: str) -> str:
    """Write alike what names the same page: case of scheme and host, a fragment and a last slash make no other one."""
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}?{parts.query}"


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
