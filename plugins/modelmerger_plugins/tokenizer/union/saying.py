"""What is said of a union of tokenizers before a merge."""

from collections.abc import Iterator

from modelmerger import Problem, amount

from modelmerger_plugins.tokenizer.union.joining import Joined, Union

MOST = 4


def problems_with_union(union: Union, place: str) -> Iterator[Problem]:
    """For each tokenizer that was joined: who leads which script, what was taken, and what could not be. place: of the
    first's file.
    """
    for joined in union.joined:
        yield Problem(_taken(joined), place, severity="note")
        if joined.differing:
            differ = "differ" if len(joined.differing) > 1 else "differs"
            message = (
                f"{' and '.join(joined.differing)} of '{joined.name}' {differ}; those here stay, since "
                f"transformers makes them anew by the class. Texts are cut at other places than '{joined.name}' was "
                "trained with."
            )
            yield Problem(message, place, severity="note")
        if joined.imported.unmade:
            message = (
                f"{amount(joined.imported.unmade, 'token')} of '{joined.name}' that its tokenizer takes whole "
                "(ignore_merges) and no merge makes are not taken, since the tokenizer here has no ignore_merges."
            )
            yield Problem(message, place, severity="warning")


def _taken(joined: Joined) -> str:
    """`takes 31,016 tokens of 'b', which leads ARABIC (25,439 tokens to 520).`"""
    counts = joined.leaders.counts
    led = sorted(joined.leaders.second, key=lambda script: -counts[script][1])
    named = ", ".join(
        f"{script.title()} ({counts[script][1]:,} tokens to {counts[script][0]:,})" for script in led[:MOST]
    )
    if not led:
        text = f"takes no pieces of '{joined.name}', which has no script with 32 tokens and more than the others"
    else:
        more = f" and {len(led) - MOST} more" if len(led) > MOST else ""
        text = f"takes {amount(len(joined.imported.entries), 'token')} of '{joined.name}', which leads {named}{more}"
    further = [amount(joined.added, "added token")] if joined.added else []
    further += [f"{joined.conflicts:,} merges are in conflict, and '{joined.name}' decides"] if joined.conflicts else []
    impossible = joined.imported.impossible
    further += [f"{impossible:,} merges could not be made"] if impossible else []
    return f"{'; '.join([text, *further])}."
