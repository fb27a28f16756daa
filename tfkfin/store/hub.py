"""Models on the Hugging Face Hub: hf://user/name[@revision] is the content of one version folder, with its card.

Who may write, which server and which cache are used is huggingface_hub's business: hf auth login, HF_ENDPOINT, HF_HOME.
What was fetched once is used again without a network, and each file must have the SHA-256 that the card says.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfkfin.base import reading
from tfkfin.base.errors import InputError
from tfkfin.base.extras import required
from tfkfin.store import folders

GIT = ".gitattributes"  # the Hub's own file, no part of a model


def named(name: str) -> tuple[str, str | None]:
    """hf://user/name@revision -> ("user/name", revision or None).

    Raises:
        InputError: no such name.
    """
    found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if not found:
        raise InputError(f"a model on the Hub is hf://user/name, or hf://user/name@revision. Received: {name!r}")
    return found[1], found[2]


def pull(name: str) -> Path:
    """The version folder hf://user/name[@revision], in huggingface_hub's cache, which also answers without a network.

    Raises:
        InputError: no such model, no way to the Hub and nothing in the cache, no card, or a file that is not as the
            card says.
    """
    repo, revision = named(name)
    with _told(name) as hub:
        server = os.environ.get("HF_ENDPOINT")
        folder = Path(hub.snapshot_download(repo, revision=revision, endpoint=server, ignore_patterns=[GIT]))
    if folders.newest(folder) is None:
        raise InputError(f"{name} is no model of tfkfin: it holds no {folders.SAVED_MODEL} and no {folders.ONNX}")
    if not folders.card(folder).get("sha256"):
        raise InputError(f"{name} has a card without checksums: who exported it has to push it anew")
    if altered := folders.changed(folder):
        raise InputError(f"{name} is not as it was exported: {', '.join(altered)}")
    return folder


def push(version: Path, name: str, private: bool = False) -> str:
    """Makes a version folder the newest commit of hf://user/name, which is made if it is not there; returns its URL.

    Raises:
        InputError: the folder is not as it was exported, no way to the Hub, or it refuses.
    """
    repo, revision = named(name)
    if revision:
        raise InputError(f"a push makes a new revision, so it names none. Received: {name!r}")
    card = folders.card(version)
    if altered := folders.changed(version):
        raise InputError(f"{version} is not as it was exported: {', '.join(altered)}")
    files = {path.relative_to(version).as_posix(): path for path in sorted(version.rglob("*")) if path.is_file()}
    texts: dict[str, Any] = {folders.README: (front_matter(card) + reading.text(files[folders.README])).encode(),
                            folders.CARD: json.dumps(folders.sealed(without_paths(card)), indent=2).encode()}
    with _told(name) as hub:
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        api.create_repo(repo, private=private, exist_ok=True)
        there = set(api.list_repo_files(repo)) - {GIT, *files}
        changes = [hub.CommitOperationDelete(path_in_repo=path) for path in sorted(there)]
        changes += [hub.CommitOperationAdd(path_in_repo=path, path_or_fileobj=texts.get(path, str(file)))
                    for path, file in files.items()]
        message = f"{card['name']}, version {card['version']}"
        return str(api.create_commit(repo, changes, commit_message=message).commit_url)


def without_paths(card: dict) -> dict:
    """The card without where the recordings lie on this machine."""
    source = card.get("recipe", {}).get("source")
    return card if source is None else card | {"recipe": card["recipe"] | {"source": source | {"data": ""}}}


def front_matter(card: dict) -> str:
    """What the Hub wants at the top of a README: licence, library, tags; JSON is YAML."""
    tags = ["tfkfin", "surface-emg", "feature-imitation-network", card["kind"], card.get("family", "")]
    about = {"license": card["licence"].lower(), "library_name": "tfkfin", "tags": [tag for tag in tags if tag],
             "pipeline_tag": "other"}
    return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in about.items()) + "---\n\n"


@contextmanager
def _told(name: str) -> Iterator[Any]:
    """Yields huggingface_hub; its errors become an InputError of one line."""
    hub = required("huggingface_hub", "hub", "hf:// needs huggingface_hub")
    try:
        yield hub
    except Exception as error:
        ours = isinstance(error, OSError | ValueError) or type(error).__module__.startswith("httpx")
        if not ours or isinstance(error, InputError):
            raise
        raise InputError(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
