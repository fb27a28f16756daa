"""Small decoders for live tests, each fitted to the first synthetic subject: FINs that stream, and FINs that do not."""

import shutil
from pathlib import Path

import pytest
from live_cases import CASES, fitted

from tfkfin.recordings import readers


@pytest.fixture(scope="session")
def recording(tiny_db2):
    return readers.read(readers.find(tiny_db2)[0])


@pytest.fixture(scope="session")
def streaming(recording):
    return fitted([recording], CASES["streaming"])


@pytest.fixture(scope="session")
def filtered(recording):
    return fitted([recording], CASES["filtered"])


@pytest.fixture(scope="session", params=CASES)
def decoder(request, recording):
    shared = request.param in ("streaming", "filtered")
    return request.getfixturevalue(request.param) if shared else fitted([recording], CASES[request.param])


@pytest.fixture(scope="session")
def exported(streaming, tmp_path_factory):
    """A model folder."""
    return streaming.export(tmp_path_factory.mktemp("models") / "mine").parent


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium: playwright's own, or the system's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        names = ("chromium", "chromium-browser", "google-chrome")
        path = own if Path(own).is_file() else next(filter(None, map(shutil.which, names)), None)
        if path is None:
            pytest.skip(f"no Chromium: neither playwright's own ({own}; playwright install chromium) nor one of "
                        f"{', '.join(names)} (apt-get install chromium) is there")
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()
