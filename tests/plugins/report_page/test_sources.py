"""The models that were merged, as the page lists them."""

from modelmerger_plugins.report_page.sources import sources_of

from tests.plugins.report_page import merges


def test_sources_have_their_weights_and_roles() -> None:
    found = sources_of(merges.manifest())
    assert [(source.name, source.weight, source.role) for source in found] == [
        ("arabic-chat", "1", ""),
        ("egyptian", "0.6", ""),
        ("gulf", "[0.2, 0.8, 0.4]", "subtracted"),
        ("base-0.5B", "", "base"),
    ]
    patterns = merges.manifest(sources=("a",), base=False)
    patterns["config"]["models"][0]["weight"] = {"*.mlp.*": [0, 1], "default": 0.5}
    assert sources_of(patterns)[0].weight == "{'*.mlp.*': [0, 1], 'default': 0.5}"
