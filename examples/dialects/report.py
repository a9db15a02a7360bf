"""What the demo prints: the table of losses, the sentences, and one line that says what the figures say."""

from attrs import frozen
from rich import box
from rich.table import Table
from rich.text import Text
from scoring import Score, gain_interval, mean_per_token
from sources import DIALECTS

RIGHT_TO_LEFT, END_ISOLATE = "\u2067", "\u2069"


@frozen
class Row:
    """One model as measured; `merged_from` names the specialists of a merge and is empty otherwise."""

    name: str
    scores: dict[str, Score]
    sentence: str
    merged_from: tuple[str, ...] = ()
    note: str = ""

    @property
    def kind(self) -> str:
        return "merge" if self.merged_from else "specialist" if self.name in DIALECTS else "base"

    @property
    def label(self) -> str:
        name = self.name.replace("_", " ")
        covers_all = not self.merged_from or set(self.merged_from) == set(DIALECTS)
        return name if covers_all else f"{name} ({len(self.merged_from)} of {len(DIALECTS)})"

    def dialect_scores(self) -> list[Score]:
        return [self.scores[dialect] for dialect in DIALECTS]

    @property
    def mean(self) -> float:
        """Mean over the four dialects, nats a token."""
        return mean_per_token(self.dialect_scores())

    def losses(self) -> list[float]:
        """The figures of the table's columns, left to right."""
        return [*(score.per_token for score in self.dialect_scores()), self.mean, self.scores["msa"].per_token]


def loss_table(rows: list[Row]) -> Table:
    """Held-out losses; the best of each column, as printed, is bold and starred, so that it shows without colour."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        title="Held-out loss, nats a token (lower is better, * best of its column)",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("Model", no_wrap=True)
    for heading in (*(dialect.capitalize() for dialect in DIALECTS), "Mean", "MSA"):
        table.add_column(heading, justify="right", no_wrap=True)
    printed = [[f"{loss:.2f}" for loss in row.losses()] for row in rows]
    best = [min(column, key=float) for column in zip(*printed, strict=True)]
    for index, (row, figures) in enumerate(zip(rows, printed, strict=True)):
        cells = [
            Text(f"{figure}*", style="bold green") if figure == lowest else Text(f"{figure} ")
            for figure, lowest in zip(figures, best, strict=True)
        ]
        last_of_its_kind = index + 1 < len(rows) and rows[index + 1].kind != row.kind
        table.add_row(row.label, *cells, style="cyan" if row.merged_from else "", end_section=last_of_its_kind)
    notes = [f"{row.label}: {row.note}" for row in rows if row.note]
    table.caption = "\n".join(["Mean: of the four dialects, each counting the same", *notes])
    table.caption_justify = "left"
    return table


def sentences_table(rows: list[Row], prompt: str, width: int) -> Table:
    """One generated sentence per model, each isolated so that the line around it keeps its direction."""
    table = Table(
        box=None,
        padding=(0, 1),
        show_header=False,
        title=f"One sentence each, sampled from the prompt {RIGHT_TO_LEFT}{prompt}{END_ISOLATE}",
        title_justify="left",
        title_style="bold",
        width=width,
    )
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="crop")
    for row in rows:
        table.add_row(row.label, Text(f"{RIGHT_TO_LEFT}{row.sentence}{END_ISOLATE}"))
    return table


def verdict(rows: list[Row]) -> Text:
    """Says from the figures alone who wins where, and whether the best merge of all four beats what it was made of."""
    single = [row for row in rows if row.kind != "merge"]
    specialists = [row for row in single if row.kind == "specialist"]
    merges = [row for row in rows if set(row.merged_from) == set(DIALECTS)]
    at_home = [
        row.name
        for row in specialists
        if row.scores[row.name].per_token == min(other.scores[row.name].per_token for other in single)
    ]
    best_single = min(single, key=lambda row: row.mean)
    best_merge = min(merges, key=lambda row: row.mean)
    beaten = {row.label: sum(row.mean < other.mean for other in single) for row in merges}
    low, high = gain_interval(best_merge.dialect_scores(), best_single.dialect_scores())
    gain = best_single.mean - best_merge.mean
    sentences = sum(len(score.tokens) for score in best_single.dialect_scores())
    chance = "is more than chance" if low > 0 or high < 0 else "cannot be told from chance"
    beats = ", ".join(f"{label} beats {count}" for label, count in beaten.items())
    return Text(
        f"{len(at_home)} of {len(specialists)} specialists are the best single model on their own dialect. On the mean "
        f"of the four dialects, of the {len(single)} single models {beats}. The best merge, {best_merge.label}, has "
        f"{best_merge.mean:.2f} nats a token and the best single model, {best_single.label}, {best_single.mean:.2f}: a "
        f"difference of {gain:+.3f} (95 % interval {low:+.3f} to {high:+.3f}), which {chance} over these {sentences} "
        f"sentences."
    )
