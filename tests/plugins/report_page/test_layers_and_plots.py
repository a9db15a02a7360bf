"""From sums of tensors to the lines of a plot."""

from collections.abc import Mapping
from typing import Any

import pytest
from modelmerger_plugins.pages.plots import MOST_LINES, Series, plot
from modelmerger_plugins.report_page.layers import Layers, layers_of

UNIT = 2**80
FIRST, SECOND, HEAD = "model.embed_tokens.weight", "model.layers.0.w", "lm_head.weight"


def manifest(tensors: Mapping[str, Mapping[str, float]], names: tuple[str, ...] = ("a", "b", "base")) -> dict[str, Any]:
    exact = ("values", "both", "opposed")
    observed = {
        tensor: {
            f"plugin report_page: {key}": int(value if key.startswith(exact) else value * UNIT)
            for key, value in sums.items()
        }
        for tensor, sums in tensors.items()
    }
    return {"observed": observed, "sources": [{"name": name} for name in names]}


def layers(tensors: Mapping[str, Mapping[str, float]], **more: Any) -> Layers:
    found = layers_of(manifest(tensors, **more))
    assert found is not None
    return found


def test_tensors_of_a_layer_add_up_before_roots_and_ratios_are_taken() -> None:
    one = {
        "values": 10,
        "base": 64,
        "norm 0": 4,
        "norm 1": 9,
        "dot 0 1": 3,
        "both 0 1": 10,
        "opposed 0 1": 1,
        "norm merged": 1,
    }
    other = {
        "values": 30,
        "base": 36,
        "norm 0": 12,
        "norm 1": 16,
        "dot 0 1": -1,
        "both 0 1": 30,
        "opposed 0 1": 19,
        "norm merged": 0,
    }
    found = layers({SECOND: one, "model.layers.0.v": other, "model.layers.2.w": one})
    assert found.from_base
    assert found.places == ["0", "2"]
    a, b, merged = found.distances
    assert (a.name, a.values[0], a.dashed) == ("a", pytest.approx(4 / 10), False)
    assert (b.name, b.values[0]) == ("b", pytest.approx(5 / 10))
    assert (merged.name, merged.values[0], merged.dashed) == ("merged", pytest.approx(1 / 10), True)
    (cosine,), (conflict,) = found.cosines, found.conflicts
    assert (cosine.name, cosine.values[0]) == ("a and b", pytest.approx(2 / (4 * 5)))
    assert conflict.values[0] == pytest.approx(20 / 40)


def test_layers_are_in_order_with_what_is_before_and_behind_them() -> None:
    sums = {"values": 1, "base": 1, "norm 0": 1, "norm merged": 1}
    names = [HEAD, "model.layers.10.w", "model.layers.9.w", FIRST, "model.norm.weight"]
    assert layers(dict.fromkeys(names, sums)).places == ["before", "9", "10", "after"]
    two = layers(dict.fromkeys(["encoder.0.w", "decoder.0.w"], sums))
    assert two.places == ["decoder 0", "encoder 0"]


def test_a_model_that_did_not_move_or_was_not_read_has_a_gap() -> None:
    both = {
        "values": 1,
        "base": 1,
        "norm 0": 1,
        "norm 1": 0,
        "dot 0 1": 0,
        "both 0 1": 0,
        "opposed 0 1": 0,
        "norm merged": 1,
    }
    alone = {"values": 1, "base": 1, "norm 0": 1, "norm merged": 1}
    found = layers({SECOND: both, "model.layers.1.w": alone})
    assert found.distances[1].values == [0.0, None]
    assert found.cosines[0].values == [None, None]
    assert found.conflicts[0].values == [None, None]


def test_without_a_base_there_are_distances_alone_and_tensors_with_one_win() -> None:
    apart = {"values": 1, "origin": 4, "norm 0": 1, "norm 1": 1, "dot 0 1": -1}
    found = layers({SECOND: apart}, names=("a", "b"))
    assert not found.from_base
    assert [one.values for one in found.distances] == [[0.5], [0.5]]
    assert found.apart == [Series("a and b", [1.0])]
    assert not found.cosines
    mixed = layers({SECOND: apart, "model.layers.1.w": {"values": 1, "base": 1, "norm 0": 1, "norm merged": 1}})
    assert (mixed.from_base, mixed.places) == (True, ["1"])
    assert layers_of({"observed": {}, "sources": []}) is None


def test_lines_lie_where_their_values_are_and_break_where_there_is_none() -> None:
    found = plot("T", "", ["0", "1", "2", "3"], [Series("a", [0.0, 0.1, None, 0.2])], percent=True)
    (line,) = found.lines
    ticks = {tick.text: tick.at for tick in found.up}
    assert list(ticks) == ["0 %", "5 %", "10 %", "15 %", "20 %"]
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in line.paths[0].split(" "))
    assert (y0, y1) == (ticks["0 %"], ticks["10 %"])
    assert x0 < x1
    assert line.points[0][1] == ticks["20 %"]
    assert found.summary == "T, by layer: a from 0 % to 20 %."
    assert found.cell(None) == "–"


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 0.0], ["0", "0.5", "1"]),
        ([-0.3, 0.45], ["−0.4", "−0.2", "0", "0.2", "0.4", "0.6"]),
        ([1e-7], ["0", "5e−08", "1e−07"]),
        ([None], ["0", "0.5", "1"]),
    ],
)
def test_ticks_are_round_and_hold_every_value(values: list[float | None], ticks: list[str]) -> None:
    assert [tick.text for tick in plot("T", "", ["0"] * len(values), [Series("a", values)]).up] == ticks


def test_of_too_many_lines_those_that_agree_least_are_drawn_and_the_table_has_all() -> None:
    series = [Series(f"s{i}", [i / 10]) for i in range(9)] + [Series("merged", [9.0], dashed=True)]
    found = plot("T", "", ["0"], series)
    assert [line.name for line in found.lines] == [*(f"s{i}" for i in range(MOST_LINES - 1)), "merged"]
    assert found.left_out == 4
    assert len(found.series) == 10


def test_ends_of_a_deep_model_are_named_and_names_do_not_run_into_each_other() -> None:
    for count in (1, 2, 7, 26, 81, 200):
        across = plot("T", "", [str(i) for i in range(count)], [Series("a", [0.0] * count)]).across
        assert (across[0].text, across[-1].text) == ("0", str(count - 1))
        assert len(across) <= 7
        assert all(b.at - a.at > 30 for a, b in zip(across, across[1:], strict=False))


def test_a_reference_is_in_the_picture_in_place_of_zero() -> None:
    found = plot("T", "", ["0"], [Series("a", [0.45])], percent=True, reference=(0.5, "by chance"))
    assert found.reference is not None
    assert found.reference.at == {tick.text: tick.at for tick in found.up}["50 %"]
    assert "0 %" not in [tick.text for tick in found.up]
    assert found.lines[0].points[0][1] > found.reference.at
