"""Remote roots against real servers: Python's own for http, moto for s3, azurite for az; streaming of v7.3 files.

What needs obstore or tensorflow-io is skipped without them. Azurite is found as `azurite-blob` on the PATH or in the
folder AZURITE_BIN. TFKFIN_OTHER_PYTHON names the Python of the other environment, whose scores are compared.
"""

import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fault_server import cut, running, status, whole_only
from test_train import TINY, command

from tfkfin import recipe as recipes
from tfkfin.base import files
from tfkfin.base.errors import InputError
from tfkfin.pipeline import batches, dataset
from tfkfin.recordings import matfile, readers, remote, synthetic, transfer

with_store = pytest.mark.skipif(find_spec("obstore") is None, reason="needs the extra [remote]")
without_store = pytest.mark.skipif(find_spec("obstore") is not None, reason="the extra [remote] is installed")
with_tfio = pytest.mark.skipif(find_spec("tensorflow_io") is None, reason="needs the extra [io]")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TFKFIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "remote"


@pytest.fixture
def serve():
    """serve(folder) -> URL of Python's own HTTP server there; its `requests` are what it was asked for."""
    servers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            self.server.requests.append(f"{self.command} {self.path}")

    def start(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        server.requests = start.requests
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    start.requests = []
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def trained(data, run: Path, stage: str = "classify", python: str = sys.executable, **environment) -> dict:
    done = subprocess.run([python, "-m", "tfkfin.train", "--stage", stage, "--data", str(data), "--run", str(run),
                           *TINY, "--set", "imitate.epochs=1", "--set", "imitate.windows_per_epoch=32"],
                          env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "HDF5-DIAG" not in done.stderr and "pure virtual" not in done.stderr
    return json.loads((run / "results.json").read_text())


@pytest.fixture(scope="module")
def local(tiny_db2, tmp_path_factory) -> dict:
    return trained(tiny_db2, tmp_path_factory.mktemp("local") / "run")


@pytest.mark.parametrize("folder, url", [
    ("s3://emg/db2", "s3://emg/db2"), ("S3://emg/db2/", "s3://emg/db2"), (Path("s3://emg/db2"), "s3://emg/db2"),
    ("http://host:81/a/", "http://host:81/a"), ("https://host", "https://host"), ("az://a/c/d", "az://a/c/d"),
    ("/data/DB2", None), ("s3", None), ("http:", None), ("./s3:/x", None), ("gs://emg", None)])
def test_a_url_is_told_from_a_folder(folder, url):
    assert remote.url_of(folder) == url


@pytest.mark.parametrize("url", ["s3://emg/db2", "az://a/c/db2"])
def test_without_the_extra_the_error_names_it(url, monkeypatch):
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'is a remote root.*pip install "tfkfin\[remote\]"'):
        readers.find(url)


@without_store
def test_without_the_extra_a_command_ends_with_one_line(tmp_path):
    done = command("train", "--data", "s3://emg/db2", "--run", tmp_path / "run", *TINY)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: s3://emg/db2 is a remote root") and done.stderr.count("\n") == 1


def test_importing_it_is_light():
    code = "import sys, tfkfin.recordings.remote; sys.exit(any(m in sys.modules for m in ('tensorflow', 'requests')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_http_is_listed_by_links_or_by_an_index(tmp_path, serve):
    for name in ("a b/S1_E1_A1.mat", "deep/er/S2_E1_A1.mat", "__MACOSX/S3_E1_A1.mat", "notes.md", "._S4_E1_A1.mat"):
        (tmp_path / "www" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "www" / name).write_bytes(b"x" * len(name))
    (tmp_path / "secret.mat").write_text("not below the root")
    tree = remote.Tree(serve(tmp_path / "www"))
    assert [p.relative_to(tree.folder).as_posix() for p in tree.paths] == ["a b/S1_E1_A1.mat", "deep/er/S2_E1_A1.mat"]
    tree.fetch(tree.paths)
    assert [p.read_bytes() for p in tree.paths] == [b"x" * 16, b"x" * 20]
    (tmp_path / "www" / "index.txt").write_text("# ours\na b/S1_E1_A1.mat\n")
    assert len(remote.Tree(serve(tmp_path / "www")).paths) == 1
    assert not remote._is_safe("../secret.mat") and not remote._is_safe("/etc/S1_E1_A1.mat")


def test_http_that_cannot_be_used_says_why(tmp_path, serve):
    with pytest.raises(InputError, match="127.0.0.1:9/index.txt cannot be reached: .*refused"):
        readers.find("http://127.0.0.1:9")
    with pytest.raises(InputError, match="answers 404"):
        readers.find(serve(tmp_path) + "/nothing")
    with pytest.raises(InputError, match="http://.* is empty: files named"):
        readers.find(serve(tmp_path))
    (tmp_path / "S1_E1_A1.mat").write_text("x")
    with pytest.raises(InputError, match="http://.* has no subject 9 for exercise 1: it has 1"):
        readers.find(serve(tmp_path), (9,))


def test_only_what_is_wanted_and_what_changed_is_fetched(tiny_db2, tmp_path, serve):
    shutil.copytree(tiny_db2, tmp_path / "www")
    url = serve(tmp_path / "www")
    mine = readers.find(url, (1,))
    assert len(mine) == 1 and mine[0].path.read_bytes() == readers.find(tiny_db2, (1,))[0].path.read_bytes()
    assert sum(line.startswith("GET") and ".mat" in line for line in serve.requests) == 1
    readers.find(url)
    assert sum(line.startswith("GET") and ".mat" in line for line in serve.requests) == 2
    changed = next((tmp_path / "www").rglob("S1_*.mat"))
    os.utime(changed, (1e9, 1e9))  # same size, another time
    readers.find(url)
    assert sum(line.startswith("GET") and ".mat" in line for line in serve.requests) == 3
    changed.write_bytes(b"shorter")
    assert readers.find(url, (1,))[0].path.read_bytes() == b"shorter"
    assert not list(files.cache("remote").rglob("*.part*"))


@pytest.mark.parametrize("faults, kept", [([cut(400)], True), ([cut(400), whole_only], True), ([status(404)], False)])
def test_a_file_cut_off_goes_on_where_it_was(cache, monkeypatch, faults, kept):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "_BACKOFF_S", 0.01)
    with running() as server:
        content = server.files["/S1_E1_A1.mat"] = bytes(range(250)) * 4
        server.files["/index.txt"], server.faults["/S1_E1_A1.mat"] = b"S1_E1_A1.mat", list(faults)
        if kept:
            assert readers.find(server.url)[0].path.read_bytes() == content
            assert [headers.get("Range") for headers in server.gets("/S1")] == [None, "bytes=400-"]
        else:
            with pytest.raises(InputError, match="404 Not Found at http.*/S1_E1_A1.mat"):
                readers.find(server.url)
    assert sum(path.is_file() for path in cache.rglob("*")) == 2 * kept  # with its stamp


def test_own_recordings_come_with_their_sheet(tmp_path, serve):
    (tmp_path / "recordings.toml").write_text(
        'rate_hz = 1000\nunit = "mV"\nfiles = "p{subject}.csv"\nchannels = ["a", "b"]\nlabel = "m"\n')
    rows = "\n".join(f"{i % 7},{i % 5},{int(10 < i < 30)}" for i in range(50))
    (tmp_path / "p3.csv").write_text(f"a,b,m\n{rows}\n")
    file, = readers.find(serve(tmp_path))
    assert file.subject == 3 and readers.read(file).num_channels == 2


def test_the_cache_is_bounded_and_forgets_the_longest_unused(tmp_path, serve, cache, monkeypatch):
    for i in (1, 2, 3):
        (tmp_path / "www").mkdir(exist_ok=True)
        (tmp_path / "www" / f"S{i}_E1_A1.mat").write_bytes(bytes(1000))
    url = serve(tmp_path / "www")
    monkeypatch.setenv("TFKFIN_CACHE_GB", "2.5e-6")
    for subject in (1, 2, 1, 3):
        readers.find(url, (subject,))
        time.sleep(0.02)
    assert sorted(path.name for path in cache.rglob("S*.mat")) == ["S1_E1_A1.mat", "S3_E1_A1.mat"]
    with pytest.raises(InputError, match="raise TFKFIN_CACHE_GB"):
        readers.find(url)
    monkeypatch.setenv("TFKFIN_CACHE_GB", "much")
    with pytest.raises(InputError, match="must be a number"):
        readers.find(url, (1,))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, serve, monkeypatch):
    (tmp_path / "S1_E1_A1.mat").write_bytes(bytes(1000))
    monkeypatch.setenv("TFKFIN_CACHE", str(tmp_path / "S1_E1_A1.mat"))
    with pytest.raises(InputError, match="the cache .* cannot be written: Not a directory"):
        readers.find(serve(tmp_path))


def test_a_file_cut_off_on_the_way_is_not_kept(tmp_path, serve, cache, monkeypatch):
    (tmp_path / "S1_E1_A1.mat").write_bytes(bytes(1000))
    url = serve(tmp_path)
    monkeypatch.setattr(transfer, "fetch", lambda url, targets: [p.write_bytes(b"x") and n for n, p in targets.items()])
    with pytest.raises(InputError, match="came with 1 of 1000 bytes"):
        readers.find(url)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_http_trains_as_the_folder_does(tiny_db2, local, tmp_path, serve):
    there = trained(serve(tiny_db2), tmp_path / "run")
    assert there["accuracy"] == local["accuracy"] and there["dataset"] == local["dataset"]
    assert recipes.load(tmp_path / "run" / "recipe.toml").source.data.startswith("http://127")


@pytest.fixture
def s3(tiny_db2):
    """A bucket of moto's server with the recordings: the environment that leads there."""
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="x",
                          aws_secret_access_key="y")
    client.create_bucket(Bucket="emg")
    for path in tiny_db2.rglob("*.mat"):
        client.upload_file(str(path), "emg", f"db2/{path.relative_to(tiny_db2).as_posix()}")
    yield {"S3_ENDPOINT": address, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    server.stop()


@with_store
def test_s3_trains_as_the_folder_does_and_ends_well(s3, local, tmp_path, cache, monkeypatch):
    there = trained("s3://emg/db2", tmp_path / "run", **s3)
    assert there["accuracy"] == local["accuracy"] and there["dataset"] == local["dataset"]
    before = {path: path.stat().st_ino for path in cache.rglob(".*.stamp")}
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    assert [file.subject for file in readers.find("s3://emg/db2/")] == [1, 2]
    assert before == {path: path.stat().st_ino for path in cache.rglob(".*.stamp")} and len(before) == 2
    with pytest.raises(InputError, match="s3://emg/nothing holds no file that can be seen"):
        readers.find("s3://emg/nothing")


KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # azurite's, public
UPLOAD = """
import pathlib, sys, tensorflow as tf, tensorflow_io
root = pathlib.Path(sys.argv[1])
tf.io.gfile.makedirs("az://devstoreaccount1/emg")
for path in root.rglob("*.mat"):
    with tf.io.gfile.GFile(f"az://devstoreaccount1/emg/db2/{path.relative_to(root).as_posix()}", "wb") as file:
        file.write(path.read_bytes())
"""


def answers(port: int) -> bool:
    with socket.socket() as there:
        return there.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def azure(tiny_db2, tmp_path):
    """A container of azurite with the recordings: the environment that leads there. tensorflow-io fixes its port."""
    program = shutil.which("azurite-blob", path=os.environ.get("AZURITE_BIN")) or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite is not there: npm install azurite, and AZURITE_BIN=node_modules/.bin")
    if answers(10000):
        pytest.skip("port 10000 is taken")
    server = subprocess.Popen([program, "--blobHost", "127.0.0.1", "--silent", "--skipApiVersionCheck",
                               "--inMemoryPersistence", "--disableTelemetry"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not answers(10000) and time.monotonic() < deadline:
            time.sleep(0.1)
        environment = {"TF_AZURE_USE_DEV_STORAGE": "1", "TF_AZURE_STORAGE_KEY": KEY}
        subprocess.run([sys.executable, "-c", UPLOAD, str(tiny_db2)], check=True, env=os.environ | environment,
                       timeout=120, capture_output=True)
        yield environment
    finally:
        server.terminate()
        server.wait()


@with_store
@with_tfio
def test_azure_trains_as_the_folder_does(azure, local, tmp_path):
    there = trained("az://devstoreaccount1/emg/db2", tmp_path / "run", **azure)
    assert there["accuracy"] == local["accuracy"] and there["dataset"] == local["dataset"]


@pytest.fixture(scope="module")
def v73(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("v73")
    synthetic.synthesize(folder, (1, 2), movements=3, channels=4, hold_s=0.8, rest_s=0.5, v73=True)
    return folder


def epoch(folder: Path) -> list[np.ndarray]:
    recipe = recipes.load(settings={"source.kind": "recordings", "window.length_ms": 100, "window.stride_ms": 50})
    opened = dataset.open_dataset(recipe, folder)
    return [array.numpy() for batch in batches.pooled(opened, ("RMS", "VAR"), 32, seed=1) for array in batch]


@with_tfio
def test_v73_streamed_by_tf_data_gives_the_same_batches(v73, monkeypatch):
    paths = [file.path for file in readers.find(v73)]
    streamed = [signal.numpy() for signal in matfile.signals(paths, 4)]
    for path, signal in zip(paths, streamed, strict=True):
        assert np.array_equal(signal.T, matfile.load(path, ("emg",))["emg"])
    with_io = epoch(v73)
    monkeypatch.setattr(matfile, "find_spec", lambda name: None)
    assert matfile.signals(paths, 4) is None
    for one, other in zip(with_io, epoch(v73), strict=True):
        assert np.array_equal(one, other)


@with_tfio
def test_v73_streams_over_http_too(v73, serve):
    path = readers.find(v73, (2,))[0].path
    signal, = matfile.stream([f"{serve(v73)}/{path.relative_to(v73).as_posix()}"], 4, "float32")
    assert np.array_equal(signal.numpy().T, matfile.load(path, ("emg",))["emg"])


@with_tfio
def test_a_v73_root_on_http_trains_all_fins_as_the_folder_does(v73, tmp_path, serve):
    there, here = trained(serve(v73), tmp_path / "a", "imitate"), trained(v73, tmp_path / "b", "imitate")
    assert there["fin"] == here["fin"] and there["dataset"] == here["dataset"]


def test_files_that_cannot_be_streamed_are_left_to_the_reader(tiny_db2, v73):
    one, other = (readers.find(folder, (1,))[0].path for folder in (tiny_db2, v73))
    assert matfile.signals([one], 4) is None and matfile.signals([other, one], 4) is None
    assert matfile.signals([Path("p1.csv")], 4) is None


@pytest.mark.skipif("TFKFIN_OTHER_PYTHON" not in os.environ, reason="TFKFIN_OTHER_PYTHON names no other environment")
def test_both_environments_give_the_same_scores(tiny_db2, local, tmp_path):
    """Seen: equal accuracies (3 seeds, and the demo), R² of FINs within 4e-9. Allowed: one window a subject."""
    theirs = trained(tiny_db2, tmp_path / "run", python=os.environ["TFKFIN_OTHER_PYTHON"])
    assert theirs["environment"]["tensorflow"] != local["environment"]["tensorflow"]
    assert theirs["recipe_digest"] == local["recipe_digest"] and theirs["dataset"] == local["dataset"]
    for subject, accuracy in local["accuracy"]["per_subject"].items():
        assert theirs["accuracy"]["per_subject"][subject] == pytest.approx(accuracy, abs=0.02)  # a window
    assert theirs["svm"]["mean"] == pytest.approx(local["svm"]["mean"], abs=1e-6)
