"""What has arrived of a file that is being fetched, and how to ask for the rest of it."""

import json
import os
from pathlib import Path


class Part:
    """What has arrived of one file, `<name>.tfkfin.part`, and `<name>.tfkfin.part.json`, which tells of what file.

    A part is only continued if URL, length and validator (ETag or date) are still the same.
    """

    def __init__(self, target: Path):
        self.path = target.with_name(target.name + ".tfkfin.part")
        self._sheet = self.path.with_name(self.path.name + ".json")
        try:
            told = json.loads(self._sheet.read_text("utf-8"))
            self.told = {name: told[name] for name in ("url", "length", "etag", "date")}
        except (OSError, ValueError, KeyError, TypeError):
            self.told = {}

    @property
    def whole(self) -> bool:
        return bool(self.told) and self.size == self.told["length"]

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.told and self.path.exists() else 0

    def begin(self, url: str, length: int | None, headers) -> None:
        """Empties the part and notes which file it is to be."""
        self.told = {"url": url, "length": length, "etag": headers.get("ETag"), "date": headers.get("Last-Modified")}
        self.path.write_bytes(b"")  # first: an old part is never found with a new sheet
        fresh = self._sheet.with_name(self._sheet.name + ".new")
        fresh.write_text(json.dumps(self.told), "utf-8")
        os.replace(fresh, self._sheet)

    def request(self, url: str) -> dict[str, str]:
        """Headers that ask for the rest, or for all of it if the part is of something else."""
        if self.told.get("url") != url:
            self.discard()
        etag = self.told.get("etag")
        strong = etag if etag and not etag.startswith("W/") else self.told.get("date")
        return {"Range": f"bytes={self.size}-", **({"If-Range": strong} if strong else {})} if self.size else {}

    def discard(self) -> None:
        self.told = {}
        self.path.unlink(missing_ok=True)
        self._sheet.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        os.replace(self.path, target)
        self._sheet.unlink(missing_ok=True)
