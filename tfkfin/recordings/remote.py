"""Folders of recordings on `s3://`, `az://` and `http(s)://`: listed there, and copied into a bounded cache to be read.

The cache is `$TFKFIN_CACHE/remote` (`~/.cache/tfkfin/remote`) and holds at most `TFKFIN_CACHE_GB` (50); the least
recently used files leave first. A file is fetched again when its size, time or ETag at the root has changed. Runs that
work at the same time must fit into the cache together. `s3://` and `az://` need the extra `remote`.

    AWS_REGION=... AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... S3_ENDPOINT=https://...    for s3://bucket/folder
    TF_AZURE_STORAGE_KEY=... (or TF_AZURE_USE_DEV_STORAGE=1)                for az://account/container/folder
    an HTML list of links, or a file index.txt with one name a line         at http://host/folder/

Object stores are read through obstore, `http://` by `transfer`.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from tfkfin.base import reading
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.base.files import cache, partial_of, put, write_text
from tfkfin.recordings import formats, transfer

_URL = re.compile(r"(s3|az|https?):/+(?=[^/])", re.IGNORECASE)
_BLOCK = 8 << 20  # bytes a request to an object store: each has its own time limit and its own tries
_HINT = {"s3": "S3_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
         "az": "TF_AZURE_STORAGE_KEY, or TF_AZURE_USE_DEV_STORAGE=1"}
_KINDS = (".toml", ".json", *(f".{suffix}" for suffix in formats.suffixes()))


def url_of(folder: str | Path) -> str | None:
    """`folder` as a URL, or None where it is a folder of this machine. pathlib's spelling, `s3:/x`, is accepted too."""
    found = _URL.match(str(folder))
    return f"{found[1].lower()}://{str(folder)[found.end():].rstrip('/')}" if found else None


class Tree:
    """The files below a URL, each with its path in the cache.

    Args:
        url: as `url_of` gives it.

    Raises:
        InputError: obstore, which object stores need, is not installed, or the root cannot be listed.
    """

    def __init__(self, url: str):
        if not url.startswith("http") and find_spec("obstore") is None:
            raise InputError(f'{url} is a remote root, and those need obstore: pip install "tfkfin[remote]", or copy '
                             "the recordings to a folder here")
        self.url, self.folder = url, cache("remote") / hashlib.sha256(url.encode()).hexdigest()[:16]
        there = (transfer.listing if url.startswith("http") else listing)(url)
        self._stamps = {self.folder / name: stamp for name, stamp in there.items() if _is_safe(name)}

    @property
    def paths(self) -> list[Path]:
        """Every file with a suffix that recordings or their descriptions have, fetched or not, sorted."""
        return sorted(path for path in self._stamps if path.suffix.lower() in (*_KINDS, ".zip"))

    def fetch(self, paths: list[Path]) -> None:
        """Copies `paths` into the cache, unless they are there and have not changed.

        Raises:
            InputError: a file cannot be fetched or arrives incomplete, or the cache is too small or not writable.
        """
        partial: dict[str, Path] = {}
        try:
            missing = [path for path in paths if not self._is_here(path)]
            size = sum(self._stamps[path][0] for path in missing)
            _make_room(size, set(paths))
            if not missing:
                return
            log.info("Fetching %d of %d files (%.1f MB) of %s into %s", len(missing), len(paths), size / 1e6, self.url,
                     self.folder)
            for path in missing:
                path.parent.mkdir(parents=True, exist_ok=True)
                partial[path.relative_to(self.folder).as_posix()] = partial_of(path)
            for name in (transfer.fetch if self.url.startswith("http") else fetch)(self.url, partial):
                self._keep(partial[name], self.folder / name)
        except OSError as error:
            raise InputError(f"the cache {self.folder} cannot be written: {error.strerror or error}: choose another "
                             "with TFKFIN_CACHE") from error
        finally:
            for part in partial.values():
                part.unlink(missing_ok=True)

    def _is_here(self, path: Path) -> bool:
        size, stamp = self._stamps[path]
        try:
            here = path.stat().st_size == size and reading.text(_stamp_file(path)) == stamp
        except FileNotFoundError:
            return False
        os.utime(path)  # now the most recently used
        return here

    def _keep(self, part: Path, path: Path) -> None:
        size, stamp = self._stamps[path]
        if part.stat().st_size != size:
            raise InputError(f"{self.url}/{path.relative_to(self.folder).as_posix()} came with {part.stat().st_size} "
                             f"of {size} bytes: try again")
        _stamp_file(path).unlink(missing_ok=True)  # if killed before the new stamp, the file is fetched again
        put(part, path)
        write_text(_stamp_file(path), stamp)


def _stamp_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.stamp")  # with a leading dot readers pass over it


def _is_safe(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not {"..", "__MACOSX"} & set(parts) and not name.startswith("/") and parts[-1][0] != "."


def _make_room(needed: int, kept: set[Path]) -> None:
    """Removes the least recently used files until `needed` bytes fit beside `kept`."""
    try:
        limit = float(os.environ.get("TFKFIN_CACHE_GB") or 50)
    except ValueError:
        raise InputError(f"TFKFIN_CACHE_GB must be a number. Received: {os.environ['TFKFIN_CACHE_GB']!r}") from None
    folder = cache("remote")
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.rglob(".*.partial.*"):  # of processes that were killed
        if time.time() - left.stat().st_mtime > 86_400:
            left.unlink(missing_ok=True)
    there = sorted((p.stat().st_mtime_ns, p.stat().st_size, p) for p in folder.rglob("*")
                   if p.is_file() and not p.name.startswith("."))
    excess = needed + sum(size for _, size, _ in there) - limit * 1e9
    for _, size, path in there:
        if excess > 0 and path not in kept:
            _stamp_file(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            excess -= size
    if excess > 0:
        raise InputError(f"the recordings need {excess / 1e9:.3g} GB more than the cache {folder} may hold "
                         f"({limit:g} GB): raise TFKFIN_CACHE_GB, or choose fewer subjects")
    if needed > shutil.disk_usage(folder).free:
        raise InputError(f"{needed / 1e9:.3g} GB do not fit on the disk of {folder}: choose another with TFKFIN_CACHE")


def listing(url: str) -> dict[str, tuple[int, str]]:
    """Relative name -> size and stamp of every object below `url`.

    Raises:
        InputError: the store cannot be reached, or holds nothing there that these credentials may see.
    """
    try:
        found = {each["path"]: (each["size"], each["e_tag"] or str(each["last_modified"]))
                 for batch in _store(url).list() for each in batch}
    except Exception as error:  # obstore has an exception for each kind of failure
        raise _failure(url, error) from error
    if not found:
        raise InputError(f"{url} holds no file that can be seen: check the name, and {_HINT[url[:2]]}")
    return found


def fetch(url: str, targets: dict[str, Path]) -> Iterator[str]:
    """Copies objects into files, one after another, and yields each name when its file is complete."""
    store = _store(url)
    for name, target in targets.items():
        with open(target, "wb") as file:
            try:
                size = store.head(name)["size"]
                for start in range(0, size, _BLOCK):
                    file.write(store.get_range(name, start=start, end=min(size, start + _BLOCK)))
            except OSError:  # of the file
                raise
            except Exception as error:
                raise _failure(f"{url}/{name}", error) from error
        yield name


def _store(url: str):
    from obstore.store import AzureStore, S3Store

    kind, _, place = url.partition("://")
    options = {"client_options": {"allow_http": True, "timeout": timedelta(minutes=2)},
               "retry_config": {"max_retries": 3, "retry_timeout": timedelta(minutes=2)}}
    if kind == "s3":
        bucket, _, prefix = place.partition("/")
        endpoint = os.environ.get("S3_ENDPOINT")
        return S3Store(bucket, prefix=prefix or None, **({"endpoint": endpoint} if endpoint else {}), **options)
    account, container, *folders = place.split("/", 2)
    key = os.environ.get("TF_AZURE_STORAGE_KEY")
    return AzureStore(container, prefix="/".join(folders) or None, account_name=account,
                      use_emulator=os.environ.get("TF_AZURE_USE_DEV_STORAGE") == "1",
                      **({"account_key": key} if key else {}), **options)


def _failure(url: str, error: Exception) -> InputError:
    reason = " ".join(str(error).partition("Debug source")[0].split())[:300]
    return InputError(f"{url}: {reason}: check {_HINT[url[:2]]}")
