"""What a strategy says of itself is checked when it is said, in one sentence with the name of the trait."""

from typing import Any

import pytest
from modelmerger import Traits


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"inputs": "x"}, "inputs must be one of models, updates, got 'x'"),
        ({"granularity": None}, "granularity must be one of elementwise, rowwise, whole, got None"),
        ({"rounds": 0}, "rounds must be a whole number, at least 1, got 0"),
        ({"rounds": "2"}, "rounds must be a whole number, at least 1, got '2'"),
        ({"models": 2}, "models must be the fewest and the most models, as (1, None) or (2, 2), got 2"),
        ({"models": (None, 2)}, "models must be the fewest and the most models, as (1, None) or (2, 2), got (None, 2)"),
    ],
)
def test_a_wrong_trait_is_refused_in_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        Traits(**given)
    assert str(caught.value) == sentence
