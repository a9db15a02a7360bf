"""Which options vary by tensor, and between which numbers."""

from modelmerger.values.varied import shown_ranges


def test_the_least_and_the_greatest_number_are_shown_of_what_varies() -> None:
    by_tensor = [
        {"options": {"power": 2.0, "even": 1.0}, "model_options": [{"density": 0.5}, {"density": 0.1}]},
        {},  # a tensor about which the strategy is not asked
        {"options": {"power": -1.0, "even": 1.0}, "model_options": [{"density": 0.5}, {"density": 0.75}]},
        {"options": {"power": 0.0, "even": 1.0}, "model_options": [{"density": 0.5}, {"density": 0.25}]},
    ]

    assert shown_ranges(by_tensor, ["chat", "formal\u202e", "base"]) == (
        "power -1 to 2, density of formal\\u202e 0.1 to 0.75"
    )


def test_nothing_is_shown_where_nothing_varies() -> None:
    assert shown_ranges([{"options": {"power": 2.0}}, {"options": {"power": 2.0}}, {}], ["chat"]) == ""
    assert shown_ranges([], []) == ""
