"""A stand-in for the Hugging Face Hub: repositories in memory, the routes that huggingface_hub takes to push and pull.

Written from the client's side alone: what is not asked for here is not there. Files go into commits whole ("regular"),
where the real Hub sends large ones to object storage.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class Hub:
    """Attributes: `commits` repository -> [{path: bytes}, ...], newest last; `asked` paths of requests."""

    def __init__(self):
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.asked: list[str] = []

    def sha(self, repo: str, number: int) -> str:
        return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()

    def at(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A revision's sha and files."""
        every = self.commits.get(repo, [])
        shas = [self.sha(repo, number) for number in range(len(every))]
        at = len(every) - 1 if revision == "main" else shas.index(revision) if revision in shas else -1
        return (shas[at], every[at]) if at >= 0 else None


@contextmanager
def hub():
    """Yields the `Hub` and its address."""
    held = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": held}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield held, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _answer(self, value, code=200, headers=(), body=True):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, text in (("Content-Length", str(len(content))), *headers):
            self.send_header(name, text)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _missing(self, what: str):
        self._answer({"error": what}, 404, [("X-Error-Code", what), ("X-Error-Message", what)], self.command != "HEAD")

    def do_POST(self):
        self.hub.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.hub.commits:
                return self._answer({"error": "exists", "url": f"{self._address}/{name}"}, 409)
            self.hub.commits[name] = [{".gitattributes": b"*.pb filter=lfs\n"}]
            return self._answer({"url": f"{self._address}/{name}", "name": name})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path.partition("?")[0]):
            return self._answer({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                           for file in json.loads(body)["files"]]})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path.partition("?")[0]):
            repo, files = found[1], dict(self.hub.commits[found[1]][-1])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            self.hub.commits[repo].append(files)
            sha = self.hub.sha(repo, len(self.hub.commits[repo]) - 1)
            url = f"{self._address}/{repo}/commit/{sha}"
            return self._answer({"success": True, "commitOid": sha, "commitUrl": url})
        return self._missing("RepoNotFound")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(self.path.partition("?")[0])
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            repo, kind, revision = found[1], found[2], found[3] or "main"
            if (there := self.hub.at(repo, revision)) is None:
                return self._missing("RevisionNotFound" if repo in self.hub.commits else "RepoNotFound")
            sha, files = there
            if kind == "tree":
                return self._answer([{"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                                     for name, content in sorted(files.items())])
            return self._answer({"id": repo, "modelId": repo, "sha": sha, "tags": [], "private": False,
                                 "downloads": 0, "likes": 0, "siblings": [{"rfilename": name} for name in files]})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            there = self.hub.at(found[1], found[2])
            if there is None or found[3] not in there[1]:
                return self._missing("EntryNotFound")
            content = there[1][found[3]]
            return self._answer(content, 200, [("ETag", f'"{_oid(content)}"'), ("X-Repo-Commit", there[0])],
                                self.command == "GET")
        return self._missing("RepoNotFound")


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
