"""Runs, saved decoders and exports of an earlier version go on working, with the numbers that it gave.

What was kept, and what was asked of it, is in golden_before/: see `make.py` there. Nothing but commands and
`tfkfin.Decoder` is used, so that everything inside may move.
"""

import pytest
from golden_before import asking

import tfkfin
from tfkfin.base.errors import InputError

# decoders of then do not know at which rate their recordings were made, which is said once
pytestmark = pytest.mark.filterwarnings("ignore:this decoder's card does not say at which rate:UserWarning")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folders, in a place where they were not made."""
    return asking.unpack(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def stranger(kept, tmp_path_factory):
    """It takes seconds to start, and is asked last."""
    process = asking.Stranger(kept, tmp_path_factory.mktemp("stranger"))
    yield process
    process.end()


@pytest.mark.parametrize("question", [
    pytest.param(question, marks=pytest.mark.slow if question in asking.SLOW else ()) for question in asking.QUESTIONS])
def test_it_answers_as_before(question, kept, stranger, tmp_path):
    then = asking.kept(question.partition("|")[0])
    assert asking.differences(then, asking.QUESTIONS[question](asking.Place(kept, tmp_path, stranger))) == []


def test_a_decoder_with_fins_that_were_removed_says_what_to_do(kept):
    """Correlations that a FIN imitates have left; what takes their place is said in one line."""
    with pytest.raises(InputError, match="train it anew with classifier.describe=correlations"):
        tfkfin.Decoder.from_preset(kept / "saved" / "imitated")
