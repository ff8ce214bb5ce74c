"""A multipart upload read as it comes: the file's bytes go on at once, and nothing of it is kept here or on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from vessel.errors import InvalidRequest, VesselError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import Request

LONGEST_FIELD = 4096
LONGEST_HEADER = 8192
MOST_PARTS = 16


class NotMultipart(VesselError):
    """The body must be multipart/form-data with a boundary, as the SDKs send files."""

    code = "unsupported_media_type"
    http_status = 415


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not a multipart form that can be read: {why}. Nothing was kept.")


@dataclass(slots=True)
class Form:
    """What has come so far: whole fields, the file's name once its part began, and its bytes since the last look."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    pieces: list[bytes] = field(default_factory=list)
    ended: bool = False


class _Reader:
    """The parser's callbacks."""

    def __init__(self, boundary: bytes) -> None:
        self.form = Form()
        self._name, self._is_file, self._value = "", False, bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._header, self._header_value = bytearray(), bytearray()
        self._parts = 0
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header,
                "on_header_value": self._on_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _broken(f"it has more than {MOST_PARTS} parts")
        self._headers = {}

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._bound(self._header, LONGEST_HEADER)

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._bound(self._header_value, LONGEST_HEADER)

    def _header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._header_value)
        self._header.clear()
        self._header_value.clear()

    def _headers_end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode(errors="replace")
        if kind != b"form-data" or not name:
            raise _broken("a part has no name")
        self._name, self._is_file = name, b"filename" in options
        self._value.clear()
        if self._is_file:
            if name != "file" or self.form.filename is not None:
                raise InvalidRequest("file: exactly one file is taken, in the field `file`.", param="file")
            self.form.filename = options[b"filename"].decode(errors="replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.form.pieces.append(data[start:end])
        else:
            self._value += data[start:end]
            self._bound(self._value, LONGEST_FIELD)

    def _part_end(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = self._value.decode(errors="replace")

    def _end(self) -> None:
        self.form.ended = True

    def _bound(self, held: bytearray, most: int) -> None:
        if len(held) > most:
            raise _broken("a field or a header is too long")


async def read_form(request: Request) -> AsyncIterator[Form]:
    """Yield the form each time more of it has come. Raises NotMultipart, InvalidRequest."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise NotMultipart
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise NotMultipart("A compressed body is not taken; send it as it is.")
    reader = _Reader(boundary)
    try:
        async for chunk in request.stream():
            reader.parser.write(chunk)
            yield reader.form
            reader.form.pieces.clear()
        reader.parser.finalize()
    except MultipartParseError:
        raise _broken("it does not follow the form's rules") from None
    if not reader.form.ended:
        raise _broken("it ends too soon")
    yield reader.form
