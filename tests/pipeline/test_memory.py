"""Arrays that TensorFlow takes over without a copy."""

import numpy as np
import pytest

from tfkfin.pipeline.subject import aligned, give_back


@pytest.mark.parametrize("shape", [(0, 3), (5,), (7, 3), (1000, 12), (64, 12, 4)])
def test_an_aligned_array_is_an_array_like_others(shape):
    array = aligned(*shape)
    assert array.shape == shape and array.dtype == np.float32 and array.flags.c_contiguous
    assert not array.size or array.ctypes.data % 64 == 0
    array[...] = 1
    give_back()
    assert array.sum() == array.size
