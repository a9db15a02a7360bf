"""The weight of a member, in each form that a weight has."""

from typing import Any

import pytest
from modelmerger.config.expanding.shares import shared_weight


@pytest.mark.parametrize(
    ("weight", "due"),
    [
        (2, 0.5),
        (0.4, 0.1),
        ([1, 2.0], [0.25, 0.5]),
        ({"*.mlp.*": [4, 8], "default": 1}, {"*.mlp.*": [1.0, 2.0], "default": 0.25}),
        ("half", "half"),
        (None, None),
        (True, True),
        ({"a": "x"}, {"a": "x"}),
    ],
)
def test_every_number_is_multiplied_and_what_is_none_stays_to_be_refused(weight: Any, due: Any) -> None:
    assert shared_weight(weight, 0.25) == due
