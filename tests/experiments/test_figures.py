"""Plots are told apart by those who see no colours, and reports name the FINs that they are about."""

from types import SimpleNamespace

import pytest

from tfkfin.experiments import figures
from tfkfin.experiments.evaluation import Evaluation


def drawn(figure) -> list[tuple[str, str, str]]:
    """Marker, colour and style of every named line of the first axes."""
    named = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    return [(line.get_marker(), line.get_color(), line.get_linestyle()) for line in named]


@pytest.mark.parametrize("count", [4, 10])
def test_lines_differ_by_marker_and_by_colours_that_everybody_sees(count):
    lines = {f"model {i}": [{"mean": 0.1 * i, "std": 0.01}] * 3 for i in range(count)}
    curves = drawn(figures.curves([("share", (1, 2, 3), lines)]))
    ladder = drawn(figures.ladder({name: [1.0, 2.0] for name in lines}, ("a", "b"), "data"))
    for seen in (curves, ladder):
        assert len({marker for marker, *_ in seen}) == count and "None" not in {marker for marker, *_ in seen}
        assert {colour for _, colour, _ in seen} <= set(figures.APART) and len(set(seen)) == count


def test_models_are_called_by_the_family_of_their_fins():
    def called(family):
        recipe = SimpleNamespace(fin=SimpleNamespace(family=family))
        return Evaluation.called(SimpleNamespace(recipe=recipe), "LSTM-FIN+CNN-II")

    assert called("bilstm") == "LSTM-FIN+CNN-II" and called("conv") == "conv-FIN+CNN-II"
