"""A root on `s3://` or `az://`, read through obstore (extra: `remote`)."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from tfkfin.base.errors import InputError

_BLOCK = 8 << 20  # bytes a request: each has its own time limit and its own tries
_HINT = {"s3": "S3_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
         "az": "TF_AZURE_STORAGE_KEY, or TF_AZURE_USE_DEV_STORAGE=1"}


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
