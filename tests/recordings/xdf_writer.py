"""Writes XDF as its specification says: https://github.com/sccn/xdf/wiki/Specifications."""

import struct
from xml.sax.saxutils import escape

TYPES = {"float32": "f", "double64": "d", "int16": "h", "int32": "i", "int8": "b"}


def chunk(tag: int, content: bytes, number: int | None = None) -> bytes:
    content = struct.pack("<H", tag) + (b"" if number is None else struct.pack("<I", number)) + content
    return b"\x08" + struct.pack("<Q", len(content)) + content


def header(number, name, kind, channels, rate, of="float32", units=()) -> bytes:
    each = "".join(f"<channel><label>c{i}</label><unit>{escape(unit)}</unit></channel>" for i, unit in enumerate(units))
    return chunk(2, f"<info><name>{escape(name)}</name><type>{kind}</type><channel_count>{channels}</channel_count>"
                    f"<nominal_srate>{rate}</nominal_srate><channel_format>{of}</channel_format><desc><channels>{each}"
                    "</channels></desc></info>".encode(), number)


def samples(number, stamps, rows, of="float32", each=32) -> bytes:
    """Chunks of `each` samples; only the last of a chunk is stamped where `stamps` has None."""
    made = b""
    for start in range(0, len(rows), each):
        content = b"\x04" + struct.pack("<I", len(rows[start : start + each]))
        for stamp, row in zip(stamps[start : start + each], rows[start : start + each], strict=True):
            content += b"\x00" if stamp is None else b"\x08" + struct.pack("<d", stamp)
            if of == "string":
                content += b"".join(b"\x01" + bytes([len(text.encode())]) + text.encode() for text in row)
            else:
                content += struct.pack(f"<{len(row)}{TYPES[of]}", *row)
        made += chunk(3, content, number)
    return made


def offsets(number, times, values) -> bytes:
    return b"".join(chunk(4, struct.pack("<dd", t, v), number) for t, v in zip(times, values, strict=True))


def whole(*parts: bytes) -> bytes:
    return b"XDF:" + chunk(1, b"<?xml version='1.0'?><info><version>1.0</version></info>") + b"".join(parts)


def marks(number, name, events, shift=0.0) -> bytes:
    """A stream of text (seconds, text)."""
    return header(number, name, "Markers", 1, 0, "string") + samples(
        number, [t + shift for t, _ in events], [[text] for _, text in events], "string", 1)
