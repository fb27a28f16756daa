"""The downloader against a local server that cuts, stalls, lies and refuses, and archives that cannot be trusted."""

import email.utils
import hashlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import filelock
import pytest
from fault_server import (
    cut,
    damaged,
    endless,
    etag,
    length,
    page,
    running,
    squeezed,
    stall,
    status,
    whole_only,
    wrong_range,
)

from tfkfin.base.console import run
from tfkfin.base.errors import InputError
from tfkfin.data import main
from tfkfin.recordings import download, readers, synthetic, transfer

STALL_S = 0.4
ZIP1, ZIP2 = "/DB2_Preproc/DB2_s1.zip", "/DB2_Preproc/DB2_s2.zip"


def pack(members, method=zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return target.getvalue()


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """subject -> bytes of a small recording."""
    paths = synthetic.synthesize(tmp_path_factory.mktemp("made"), (1, 2, 3), movements=2, repetitions=2, channels=4,
                                 hold_s=0.3, rest_s=0.3)
    return {subject: path.read_bytes() for subject, path in enumerate(paths, 1)}


@pytest.fixture(scope="session")
def archives(recordings):
    """As they are on the site: three exercises in a folder, and what macOS leaves."""
    return {n: pack([(f"DB2_s{n}/", b""), (f"__MACOSX/DB2_s{n}/._S{n}_E1_A1.mat", b"junk"),
                     *((f"DB2_s{n}/S{n}_E{k}_A1.mat", content) for k in (1, 2, 3))])
            for n, content in recordings.items()}


@pytest.fixture
def server(archives, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running() as state:
        state.files = {f"/DB2_Preproc/DB2_s{n}.zip": content for n, content in archives.items()}
        yield state


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setattr(transfer, "_TRIES", 3)
    monkeypatch.setattr(transfer, "_BACKOFF_S", 0.01)


def fetch(server, folder, subjects=(1,), **options):
    told = []
    wanted = download.Download("db2", folder, subjects, url=server.url, stall_s=STALL_S, tell=told.append, **options)
    return wanted.run(), told


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")
            if p.is_file() and p.name != ".tfkfin-download.lock"}


def assert_there(folder, recordings, subjects=(1,), exercise=1):
    for n in subjects:
        assert (folder / f"DB2_s{n}" / f"S{n}_E{exercise}_A1.mat").read_bytes() == recordings[n]
    assert not [name for name in tree(folder) if ".part" in name]


def test_a_first_run_fetches_and_unpacks_and_a_second_asks_the_server_nothing(server, tmp_path, recordings, archives):
    outcomes, _ = fetch(server, tmp_path, (1, 2, 3))
    assert [o.state for o in outcomes] == ["fetched"] * 3 and not any(o.failure for o in outcomes)
    assert [o.fetched for o in outcomes] == [len(archives[n]) for n in (1, 2, 3)]
    assert_there(tmp_path, recordings, (1, 2, 3))
    assert set(tree(tmp_path)) == {"SHA256SUMS", *(f"DB2_s{n}.zip" for n in (1, 2, 3)),
                                   *(f"DB2_s{n}/S{n}_E1_A1.mat" for n in (1, 2, 3))}
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path).returncode == 0
    assert len(readers.find(tmp_path)) == 3
    before, count = tree(tmp_path), len(server.requests)
    outcomes, _ = fetch(server, tmp_path, (1, 2, 3))
    assert {o.state for o in outcomes} == {"there already"} and len(server.requests) == count
    assert tree(tmp_path) == before


@pytest.mark.parametrize("faults", [
    [cut(5000), cut(5000)], [cut(0), cut(0)], [stall(3000)], [stall(3000, 0.05)], [length(+1000)], [length(-1000)],
    [damaged], [cut(9000), whole_only], [cut(9000), wrong_range], [status(503), status(500), cut(4000)],
    [endless], [cut(7000), status(416, Content_Range="bytes */12")], [cut(10), status(503), status(503), cut(10)],
], ids=["cut", "empty", "stalls", "trickles", "announces more", "announces less", "damage", "knows no ranges",
        "another range", "503", "no length", "another length", "patience is renewed"])
def test_one_run_outlasts(server, tmp_path, recordings, faults):
    server.faults[ZIP1] = list(faults)
    outcomes, told = fetch(server, tmp_path)
    assert outcomes[0].failure == "" and server.faults[ZIP1] == []
    assert_there(tmp_path, recordings)
    assert len(told) > 1 or faults == [endless]


def test_a_cut_file_is_resumed_where_it_was(server, tmp_path, archives):
    server.faults[ZIP1] = [cut(5000), cut(6000)]
    fetch(server, tmp_path)
    assert [headers.get("Range") for headers in server.gets(ZIP1)] == [None, "bytes=5000-", "bytes=11000-"]
    assert [headers.get("If-Range") for headers in server.gets(ZIP1)] == [None, *[etag(archives[1])] * 2]


@pytest.mark.parametrize("fault", [wrong_range, status(416, Content_Range="bytes */12")])
def test_what_does_not_continue_a_part_is_never_appended_to_it(server, tmp_path, fault):
    server.faults[ZIP1] = [cut(9000), fault]
    _, told = fetch(server, tmp_path)
    assert [headers.get("Range") for headers in server.gets(ZIP1)] == [None, "bytes=9000-", None]
    assert "the file on the server has changed" in told[1] and not any("damaged" in line for line in told)
    assert (tmp_path / "DB2_s1.zip").read_bytes() == server.files[ZIP1]


def test_a_later_run_goes_on_from_the_part(server, tmp_path, recordings, archives):
    server.faults[ZIP1] = [cut(8000), *[status(503)] * 3]
    outcomes, _ = fetch(server, tmp_path)
    assert outcomes[0].failure == "503 Service Unavailable (tried 4 times)"
    assert (tmp_path / "DB2_s1.zip.tfkfin.part").stat().st_size == 8000
    outcomes, _ = fetch(server, tmp_path)
    assert server.gets(ZIP1)[-1]["Range"] == "bytes=8000-" and outcomes[0].fetched == len(archives[1]) - 8000
    assert_there(tmp_path, recordings)


def test_a_file_that_changed_is_not_glued_to_the_old_part(server, tmp_path, recordings, archives):
    server.faults[ZIP1] = [cut(8000), *[status(503)] * 3]
    fetch(server, tmp_path)
    server.files[ZIP1] = pack([("readme.txt", b"new edition" * 99), ("DB2_s1/S1_E1_A1.mat", recordings[1])])
    outcomes, _ = fetch(server, tmp_path)
    assert outcomes[0].failure == "" and (tmp_path / "DB2_s1.zip").read_bytes() == server.files[ZIP1]
    assert_there(tmp_path, recordings)


@pytest.mark.parametrize("known", [True, False])
def test_a_whole_part_is_not_fetched_again(server, tmp_path, recordings, archives, known):
    server.faults[ZIP1] = [cut(8000), *[status(503)] * 3]
    fetch(server, tmp_path)
    (tmp_path / "DB2_s1.zip.tfkfin.part").write_bytes(archives[1])  # killed between the last byte and unpacking
    if not known:  # the server gave no length
        sheet = tmp_path / "DB2_s1.zip.tfkfin.part.json"
        sheet.write_text(json.dumps(json.loads(sheet.read_text()) | {"length": None}))
    count = len(server.gets())
    outcomes, _ = fetch(server, tmp_path)
    assert len(server.gets()) == count + (not known) and outcomes[0].fetched == 0
    assert_there(tmp_path, recordings)


@pytest.mark.parametrize("when", ["1", "date"])
def test_retry_after_is_honoured_by_all_connections(server, tmp_path, recordings, when):
    value = email.utils.formatdate(time.time() + 2, usegmt=True) if when == "date" else when
    server.faults[ZIP1] = [status(429, Retry_After=value)]
    begin = time.monotonic()
    fetch(server, tmp_path, (1, 2), connections=1)
    assert 0.8 < time.monotonic() - begin < 4
    assert_there(tmp_path, recordings, (1, 2))


def test_a_server_that_wants_us_gone_for_long_is_left_alone(server, tmp_path):
    server.faults[ZIP1] = [status(503, Retry_After="7200")]
    outcomes, _ = fetch(server, tmp_path, (1, 2, 3), connections=1)
    assert "come back in 120 minutes" in outcomes[0].failure
    assert [o.failure for o in outcomes[1:]] == ["not tried"] * 2 and len(server.gets()) == 1


@pytest.mark.parametrize("faults, reason", [
    ([status(404)], "404 Not Found at http"), ([status(403)], "403 Forbidden"), ([page], "Please accept the terms"),
    ([damaged] * 2, "it came damaged (Bad CRC-32 for file 'DB2_s1/S1_E1_A1.mat') twice"),
    ([length(-999)] * 2, "damaged (File is not a zip file) twice"), ([squeezed], "200 cannot be used"),
    ([length(+9)] * 9, "tried"), ([stall(0)] * 9, "no byte for 0.4 s (tried 3 times)"),
    ([status(302, Location="/" + "x" * 9)], "404 Not Found"), ([status(429, Retry_After="soon")] * 9, "429"),
], ids=["404", "403", "a page", "damage", "short", "gzip", "long", "stalls", "redirect", "429"])
def test_one_that_fails_leaves_the_others_alone(server, tmp_path, recordings, faults, reason):
    server.faults[ZIP1] = list(faults)
    outcomes, _ = fetch(server, tmp_path, (1, 2))
    assert reason in outcomes[0].failure and outcomes[0].state == "failed"
    assert outcomes[1].failure == ""
    assert (tmp_path / "DB2_s2" / "S2_E1_A1.mat").read_bytes() == recordings[2]
    assert not list(tmp_path.glob("DB2_s1/*")) and not (tmp_path / "DB2_s1.zip").exists()


def test_a_server_that_is_not_there_is_asked_for_one_file_only(tmp_path):
    outcomes = download.Download("db2", tmp_path, url="http://127.0.0.1:9", connections=1, stall_s=STALL_S).run()
    assert re.fullmatch(r"no connection: .*refused.* \(tried 3 times\)", outcomes[0].failure)
    assert {o.state for o in outcomes[1:]} == {"not tried"} and len(outcomes) == 40


def test_another_exercise_comes_from_the_archive_that_is_there(server, tmp_path, recordings):
    fetch(server, tmp_path)
    count = len(server.requests)
    outcomes, _ = fetch(server, tmp_path, exercises=(1, 2, 3))
    assert outcomes[0].state == "unpacked" and len(server.requests) == count
    for exercise in (1, 2, 3):
        assert_there(tmp_path, recordings, exercise=exercise)


def test_archives_are_dropped_only_on_request_and_only_our_own(server, tmp_path, recordings, archives):
    (tmp_path / "DB2_s2.zip").write_bytes(archives[2])  # fetched with a browser
    fetch(server, tmp_path, (1, 2, 3), exercises=(1, 2))
    assert server.gets(ZIP2) == []
    fetch(server, tmp_path, (1, 2), keep_zips=False)
    assert sorted(p.name for p in tmp_path.glob("*.zip")) == ["DB2_s2.zip", "DB2_s3.zip"]
    assert_there(tmp_path, recordings, (1, 2, 3))
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path).returncode == 0
    fetch(server, tmp_path / "lean", keep_zips=False)
    assert set(tree(tmp_path / "lean")) == {"SHA256SUMS", "DB2_s1/S1_E1_A1.mat"}


def test_files_that_changed_are_set_aside_not_deleted(server, tmp_path, recordings):
    fetch(server, tmp_path)
    target, kept = tmp_path / "DB2_s1" / "S1_E1_A1.mat", tmp_path / "DB2_s1.zip"
    target.write_bytes(b"mine")
    kept.write_bytes(b"also mine")
    outcomes, told = fetch(server, tmp_path)
    assert outcomes[0].state == "fetched" and sum("has changed since its download" in line for line in told) == 2
    assert_there(tmp_path, recordings)
    assert target.with_name(target.name + ".changed1").read_bytes() == b"mine"
    assert kept.with_name(kept.name + ".changed1").read_bytes() == b"also mine"
    assert len(readers.find(tmp_path)) == 1


def test_files_of_the_user_are_used_where_they_are_and_never_touched(server, tmp_path, recordings, archives):
    mine = tmp_path / "elsewhere" / "s1_a1_e1.mat"
    mine.parent.mkdir()
    mine.write_bytes(recordings[1])
    (tmp_path / "SHA256SUMS").write_text("# my notes\n" + "0" * 64 + "  thesis.pdf\n")
    for name in ("DB2_s1.zip.part", "notes.txt"):
        (tmp_path / name).write_text("keep")
    outcomes, _ = fetch(server, tmp_path, (1, 2))
    assert [o.state for o in outcomes] == ["there already", "fetched"] and server.gets(ZIP1) == []
    assert mine.read_bytes() == recordings[1] and (tmp_path / "DB2_s1.zip.part").read_text() == "keep"
    assert {"# my notes", "0" * 64 + "  thesis.pdf"} <= set((tmp_path / "SHA256SUMS").read_text().splitlines())


@pytest.mark.parametrize("name, content", [("DB2_s1/S1_E1_A1.mat", "recording"), ("DB2_s1.zip", "archive")])
def test_a_damaged_file_of_the_user_stays_and_is_named(server, tmp_path, recordings, archives, name, content):
    broken = (recordings if content == "recording" else archives)[1][:-300]
    (tmp_path / "DB2_s1").mkdir()
    (tmp_path / name).write_bytes(broken)
    outcomes, _ = fetch(server, tmp_path)
    assert "move it away" in outcomes[0].failure and name in outcomes[0].failure
    assert (tmp_path / name).read_bytes() == broken and server.gets() == []


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target


@pytest.mark.parametrize("extra, reason", [
    (("../S1_E1_A1.mat", b"x"), "leaves the folder"), (("DB2_s1/../../etc/passwd", b"x"), "leaves the folder"),
    (("/etc/S1_E1_A1.mat", b"x"), "leaves the folder"), (("C:\\S1_E1_A1.mat", b"x"), "leaves the folder"),
    (("..\\S1_E1_A1.mat", b"x"), "leaves the folder"), (link("DB2_s1/out", "/etc"), "is a link"),
    (("bomb", bytes(120 << 20)), "would unpack from"), (("other/S1_E1_A1.mat", b"x"), "two recordings"),
], ids=["up", "up inside", "absolute", "drive", "backslash", "link", "bomb", "twin"])
def test_unsafe_archives_are_refused_whole(server, tmp_path, recordings, extra, reason):
    server.files[ZIP1] = pack([("DB2_s1/S1_E1_A1.mat", recordings[1]), extra], zipfile.ZIP_DEFLATED)
    outcomes, _ = fetch(server, tmp_path / "to", (1, 2))
    assert reason in outcomes[0].failure and outcomes[1].failure == ""
    assert set(tree(tmp_path)) == {"to/SHA256SUMS", "to/DB2_s2.zip", "to/DB2_s2/S2_E1_A1.mat"}


def test_archives_that_are_large_as_a_whole_or_encrypted_are_refused(server, tmp_path, archives, monkeypatch):
    body = bytearray(archives[1])
    body[body.index(b"PK\x01\x02") + 8] |= 1
    server.files[ZIP1] = bytes(body)
    assert "is encrypted" in fetch(server, tmp_path)[0][0].failure
    monkeypatch.setattr(download, "_LARGEST", 1000)
    assert "more than it can hold" in fetch(server, tmp_path, (2,))[0][0].failure


@pytest.mark.parametrize("members, reason", [
    ([("DB2_s1/S2_E1_A1.mat", b"x")], "no exercise 1 of subject 1, only S2_E1_A1.mat"), ([], "not a zip archive"),
    ([("a.txt", b"")], "only other things"), ([("DB2_s1/S1_E1_A1.mat", b"a page, not a recording")], "MATLAB"),
])
def test_archives_of_something_else(server, tmp_path, members, reason):
    server.files[ZIP1] = pack(members)
    assert reason in fetch(server, tmp_path)[0][0].failure


def test_any_damage_to_an_archive_is_found(tmp_path, archives):
    """Cut or altered at every hundredth place, it is refused, or what is unpacked is unharmed."""
    path, target = tmp_path / "a.zip", tmp_path / "S1_E1_A1.mat"
    whole = hashlib.sha256(zipfile.ZipFile(io.BytesIO(archives[1])).read("DB2_s1/S1_E1_A1.mat")).hexdigest()
    found = 0
    for place in range(0, len(archives[1]), max(1, len(archives[1]) // 60)):
        for broken in (archives[1][:place], archives[1][:place] + bytes([archives[1][place] ^ 255])
                       + archives[1][place + 1 :]):
            path.write_bytes(broken)
            try:
                assert download.unpack(path, 1, {1: target}, lambda: None) == {target: whole}
                target.unlink()
            except (download.Damaged, transfer.FetchError):
                found += 1
            assert not target.exists() and [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    assert found > 100


def test_what_gets_its_name_is_on_the_disk_before(server, tmp_path, monkeypatch):
    """A power cut after the renaming leaves a whole file: the bytes of its inode were synced at their full length."""
    synced, named = {}, []

    def fsync(descriptor, call=os.fsync):
        call(descriptor)
        synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    def replace(source, target, *rest, call=os.replace):
        state = os.stat(source)
        assert synced.get(state.st_ino) == state.st_size, f"{target} is named before it is on the disk"
        named.append(Path(target).name)
        call(source, target, *rest)

    for name, patched in (("fsync", fsync), ("replace", replace), ("rename", replace)):
        monkeypatch.setattr(os, name, patched)
    assert fetch(server, tmp_path)[0][0].failure == ""
    assert {"DB2_s1.zip", "S1_E1_A1.mat", "SHA256SUMS", "DB2_s1.zip.tfkfin.part.json"} == set(named)


@pytest.mark.parametrize("last", ["whole", "damaged"])
def test_nothing_has_its_name_while_the_archive_is_read(tmp_path, recordings, monkeypatch, last):
    """The names come after the last byte of the last member, and not at all if that one is damaged."""
    path, targets = tmp_path / "a.zip", {k: tmp_path / "to" / f"S1_E{k}_A1.mat" for k in (1, 2)}
    body = pack([*((f"S1_E{k}_A1.mat", recordings[1]) for k in (1, 2)), ("notes.txt", b"read me" * 999)])
    path.write_bytes(body if last == "whole" else body.replace(b"read me" * 9, b"read us" * 9, 1))
    seen = []

    def read(self, *size, call=zipfile.ZipExtFile.read):
        seen.append([target for target in targets.values() if target.exists()])
        return call(self, *size)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", read)
    if last == "whole":
        assert set(download.unpack(path, 1, targets, lambda: None)) == set(targets.values())
        assert [target.read_bytes() for target in targets.values()] == [recordings[1]] * 2
    else:
        with pytest.raises(download.Damaged, match="notes.txt"):
            download.unpack(path, 1, targets, lambda: None)
        assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]
    assert len(seen) >= 3 and not any(seen)


def test_a_file_that_appears_while_it_unpacks_is_not_overwritten(tmp_path, archives):
    (tmp_path / "a.zip").write_bytes(archives[1])
    targets = {k: tmp_path / f"S1_E{k}_A1.mat" for k in (1, 2)}
    with pytest.raises(transfer.FetchError, match="S1_E2_A1.mat appeared meanwhile and is never overwritten"):
        download.unpack(tmp_path / "a.zip", 1, targets, lambda: targets[2].write_bytes(b"mine"))
    assert set(tree(tmp_path)) == {"a.zip", "S1_E2_A1.mat"} and targets[2].read_bytes() == b"mine"


def test_killed_while_it_unpacks_it_leaves_no_half_recording(server, tmp_path, recordings):
    code = ("import os, signal, sys, zipfile; from pathlib import Path\n"
            "from tfkfin.recordings import download\n"
            "def read(self, *size, call=zipfile.ZipExtFile.read, count=[]):\n"
            "    count.append(1)\n"
            "    if len(count) == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return call(self, 4096)\n"
            "zipfile.ZipExtFile.read = read\n"
            "download.Download('db2', Path(sys.argv[2]), (1,), url=sys.argv[1]).run()\n")
    for read in (9, 30):
        done = subprocess.run([sys.executable, "-c", code, server.url, tmp_path, str(read)], timeout=60,
                              env=os.environ | {"no_proxy": "127.0.0.1"}, cwd=Path(__file__).parents[2])
        assert done.returncode == -signal.SIGKILL and not list(tmp_path.rglob("S1_*"))
        assert [path.name for path in tmp_path.rglob("*.mat")], "it did not come as far as unpacking"
    count = len(server.gets())
    assert fetch(server, tmp_path)[0][0].failure == "" and len(server.gets()) == count
    assert_there(tmp_path, recordings)
    assert set(tree(tmp_path)) == {"SHA256SUMS", "DB2_s1.zip", "DB2_s1/S1_E1_A1.mat"}


def test_two_copies_of_a_recording_end_it_before_the_first_byte(server, tmp_path, recordings):
    copies = tmp_path / "a" / "S2_E3_A1.mat", tmp_path / "b" / "s2_a1_e3.mat"
    for path in copies:
        path.parent.mkdir()
        path.write_bytes(recordings[2])
    (tmp_path / "__MACOSX").mkdir()
    for name in ("__MACOSX/S2_E3_A1.mat", "a/._S2_E3_A1.mat"):
        (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(InputError, match=f"{copies[0]} and {copies[1]} are the same recording: keep one"):
        fetch(server, tmp_path)
    assert server.requests == [] and not (tmp_path / "DB2_s1").exists()
    copies[1].unlink()
    assert fetch(server, tmp_path)[0][0].failure == ""


def test_a_full_disk_is_told_before_the_first_byte(server, tmp_path, archives, monkeypatch):
    usage = type("Usage", (), {"free": (64 << 20) + 2 * len(archives[1])})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="the disk is full: .* fewer --subjects"):
        fetch(server, tmp_path, (1, 2, 3))
    assert server.gets() == []
    assert fetch(server, tmp_path, (1,))[0][0].failure == ""


def test_a_disk_that_fills_up_ends_the_run(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.Download, "_check_room", lambda _: None)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    outcomes, _ = fetch(server, tmp_path, (1, 2), connections=1)
    assert "the disk is full" in outcomes[0].failure and outcomes[1].state == "not tried"


def test_one_download_at_a_time_and_one_database_in_a_folder(server, tmp_path):
    with filelock.FileLock(tmp_path / ".tfkfin-download.lock"), \
            pytest.raises(InputError, match="another download is at work"):
        fetch(server, tmp_path)
    fetch(server, tmp_path)
    with pytest.raises(InputError, match="holds db2, whose files have the same names as those of db3"):
        download.Download("db3", tmp_path).run()


@pytest.mark.parametrize("database, path, folder", [
    ("db3", "/db3_Preproc/s2_0.zip", "DB3_s2"), ("db7", "/DB7_Preproc/Subject_2.zip", "Subject_2")])
def test_other_databases_have_their_own_addresses(server, tmp_path, recordings, database, path, folder):
    server.files = {path: pack([(f"{folder}/S2_E1_A1.mat", recordings[2])])}
    assert download.Download(database, tmp_path, (2,), url=server.url + "/").run()[0].state == "fetched"
    assert (tmp_path / folder / "S2_E1_A1.mat").read_bytes() == recordings[2]


def call(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        run(main, ["download", *map(str, argv)])
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


def test_help_loads_nothing_heavy():
    code = ("import sys; from tfkfin.base.console import run; from tfkfin.data import main\n"
            "try: run(main, ['download', '--help'])\n"
            "finally: sys.stderr.write(' '.join({'tensorflow', 'scipy', 'requests', 'numpy'} & {*sys.modules}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--no-keep-zips" in done.stdout and done.stderr == ""


def test_the_command(server, tmp_path, capsys, monkeypatch, recordings):
    monkeypatch.setenv("TFKFIN_NINAPRO_URL", server.url)
    code, out, err = call(capsys, "db2", "--subjects", "1-2", "--to", tmp_path)
    assert code == 0 and err.count("\n") == 2 and "subject 2: fetched, 0." in err
    assert "doi 10.1038/sdata.2014.53" in out and out.count("fetched") == 2
    assert f"python -m tfkfin.train --stage finetune --data {tmp_path} --pipeline db2_within" in out
    code, out, err = call(capsys, "db2", "--subjects", "1-5", "--to", tmp_path)
    assert code == 2 and err.splitlines()[-1].startswith("error: 2 of 5 subjects are missing: subject 4: 404")
    assert "Traceback" not in err and err.splitlines()[0] == "checking 2 recordings in the folder"
    assert out.count("there already") == 2 and out.count("failed") == 2 and "Ninapro asks you to cite" in out
    assert_there(tmp_path, recordings, (1, 2, 3))


@pytest.mark.parametrize("argv, reason", [
    (["--subjects", "39-42"], "db2 has no subject 41, 42: it has 1-40"), (["--subjects", "x"], "'x' is not a list"),
    (["--exercises", "4"], "db2 has no exercise 4: it has 1-3"), (["--connections", "9"], "1 to 4 are allowed"),
    (["--url", "ftp://a"], "is not an address"), (["--stall", "0"], "--stall is 0"), (["--to", __file__], "is a file"),
    (["--to", "/proc/none"], "cannot be made"),
])
def test_unfit_options(capsys, argv, reason, tmp_path):
    code, _, err = call(capsys, "db2", *(argv if "--to" in argv else [*argv, "--to", tmp_path / "new"]))
    assert code == 2 and reason in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ended_at_any_moment_it_resumes(server, tmp_path, recordings, how):
    server.faults[ZIP1] = [stall(9000)]
    command = [sys.executable, *"-m tfkfin.data download db2 --subjects 1 --url".split(), server.url, "--to", tmp_path]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"no_proxy": "127.0.0.1"}, cwd=Path(__file__).parents[2])
    part = tmp_path / "DB2_s1.zip.tfkfin.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    begin = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert process.returncode == (130 if how == signal.SIGINT else -how) and time.monotonic() - begin < 10
    assert "Traceback" not in err and ("resumes" in err) == (how == signal.SIGINT)
    assert fetch(server, tmp_path)[0][0].failure == ""
    assert 0 < int(server.gets(ZIP1)[-1]["Range"][6:-1]) <= 9000
    assert_there(tmp_path, recordings)


def trickled_head(handler, body):
    """The head of an answer that comes to no end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not handler.server.state.closing.wait(0.1):
        handler.wfile.write(b"x")


def heads(**headers):
    def fault(handler, body):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        for name, value in headers.items():
            handler.wfile.write(f"{name.replace('_', '-')}: {value}\r\n".encode())
        handler.wfile.write(b"\r\n" + body)
        handler.close_connection = True
    return fault


def unending(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + body[:16] + b"\r\n")
    while True:
        handler.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


@pytest.mark.parametrize("fault, reason", [
    (stall(10, 0.05), "slower than|no byte"), (trickled_head, "no answer within"), (unending, "more bytes came than")])
def test_a_server_that_trickles_or_never_ends_is_left(server, tmp_path, monkeypatch, fault, reason):
    monkeypatch.setattr(transfer, "_LARGEST", 1 << 20)
    server.faults = {ZIP1: [fault] * 50}
    began = time.monotonic()
    (outcome,), _ = fetch(server, tmp_path)
    assert outcome.state == "failed" and re.search(reason, outcome.failure), outcome
    assert time.monotonic() - began < 15 and len(server.gets(ZIP1)) <= 4
    assert sum(len(content) for content in tree(tmp_path).values()) < 2 << 20


@pytest.mark.parametrize("headers", [
    {"Content_Length": "\u00b2"}, {"Content_Length": "1" * 5000}, {"Content_Length": "-5"}, {"Content_Length": "0x10"},
    {"ETag": "\x80\xff"}, {"Content_Encoding": "gzip, gzip, gzip"}, {"Transfer_Encoding": "odd"},
    {"Content_Range": "bytes */*"}, {"X" * 300: "y" * 60_000}, {"Set_Cookie": "a=" + "b" * 50_000}])
def test_odd_heads_are_borne(server, tmp_path, headers):
    server.faults = {ZIP1: [heads(**headers)] * 9}
    (outcome,), _ = fetch(server, tmp_path)
    assert outcome.state in ("failed", "fetched") and "Traceback" not in outcome.failure


@pytest.mark.parametrize("where", ["http://[::1", "http://\x80\xff/",
                                    "file:///etc/passwd", ""])
def test_odd_directions_are_not_followed(server, tmp_path, where):
    server.faults = {ZIP1: [status(302, Location=where)] * 9}
    (outcome,), _ = fetch(server, tmp_path)
    assert outcome.state == "failed" and outcome.failure


def test_a_safe_connection_leads_to_safe_ones_only():
    import requests

    answer = requests.Response()
    answer.status_code, answer.url, answer.raw = 302, "https://ninapro.example/a.zip", io.BytesIO()
    for target, safe in (("http://ninapro.example/a.zip", False), ("https://other.example/", True), ("/b.zip", True),
                         ("//other.example/a", True), ("ftp://x/", False)):
        answer.headers["location"] = target
        if safe:
            assert transfer.session().get_redirect_target(answer) == target
        else:
            with pytest.raises(requests.exceptions.InvalidURL, match="not safe"):
                transfer.session().get_redirect_target(answer)


@pytest.mark.parametrize("known", [True, False])
def test_a_planted_link_is_not_written_through(server, tmp_path, recordings, known):
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    (tmp_path / "data").mkdir()
    part = tmp_path / "data" / "DB2_s1.zip.tfkfin.part"
    part.symlink_to(mine)
    if known:
        part.with_name(part.name + ".json").write_text(json.dumps({"url": server.url + ZIP1, "length": None,
                                                                   "version": None}))
    fetch(server, tmp_path / "data")
    assert mine.read_bytes() == b"mine"
    assert_there(tmp_path / "data", recordings)
