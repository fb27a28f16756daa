"""What the tests of models share: no engine from outside, and no test of the C kernel where none can be built."""

import pytest

from tfkfin.nets.bilstm import native


def has_kernel() -> bool:
    try:
        native.load()
    except native.NativeUnavailable:
        return False
    return True


@pytest.fixture(autouse=True)
def engines(monkeypatch, request):
    monkeypatch.delenv("TFKFIN_ENGINE", raising=False)
    if request.node.get_closest_marker("kernel") and not has_kernel():
        pytest.skip("no C compiler")
