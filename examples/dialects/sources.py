"""Where the text behind the example models comes from, and under which licence each part is.

The text itself is not part of this project. Whoever trains again gets each source from its origin and writes one file
per variety, `VARIETY.tsv`, one line a sentence or post: `source<TAB>text`, UTF-8, NFC, with the source names below.
"""

from pathlib import Path

from attrs import frozen

VARIETIES = ("egyptian", "gulf", "levantine", "maghrebi", "msa")
DIALECTS = VARIETIES[:-1]


@frozen
class Source:
    """A published data set: where it is had, under which licence, and whom to credit."""

    origin: str
    licence: str
    credit: str


_ARBANKING = Source(
    "https://github.com/SinaLab/ArBanking77",
    "CC BY-SA 4.0",
    "ArBanking77, SinaLab, Birzeit University (Jarrar et al. 2023; Malaysha et al. 2024)",
)
_ARSARCASM = Source(
    "https://github.com/iabufarha/ArSarcasm-v2", "MIT", "ArSarcasm-v2 (Abu Farha, Zaghouani and Magdy 2021)"
)
_SHAMI = Source("https://github.com/GU-CLASP/shami-corpus", "Apache-2.0", "Shami corpus (Abu Kwaik et al. 2018)")
_AFRISENTI = Source(
    "https://github.com/afrisenti-semeval/afrisent-semeval-2023", "CC BY 4.0", "AfriSenti (Muhammad et al. 2023)"
)

SOURCES: dict[str, Source] = {
    "arbanking77-msa": _ARBANKING,
    "arbanking77-palestinian": _ARBANKING,
    "arbanking77-saudi": _ARBANKING,
    "arbanking77-moroccan": _ARBANKING,
    "arbanking77-tunisian": _ARBANKING,
    "arsarcasm-v2": _ARSARCASM,
    "shami-lebanese": _SHAMI,
    "shami-palestinian": _SHAMI,
    "shami-jordanian": _SHAMI,
    "afrisenti-ma": _AFRISENTI,
    "afrisenti-dz": _AFRISENTI,
    "ntrex128-arb": Source(
        "https://github.com/MicrosoftTranslator/NTREX",
        "CC BY-SA 4.0",
        "NTREX-128 (Federmann, Kocmi and Xin 2022)",
    ),
    "ud-arabic-pud": Source(
        "https://github.com/UniversalDependencies/UD_Arabic-PUD",
        "CC BY-SA 3.0",
        "UD Arabic-PUD (Universal Dependencies; translation by DFKI, annotation by Google)",
    ),
    "ud-ajp-madar": Source(
        "https://github.com/UniversalDependencies/UD_South_Levantine_Arabic-MADAR",
        "CC BY-SA 4.0",
        "UD South Levantine Arabic-MADAR (Zahra 2020), with text of the MADAR corpus (Bouamor et al. 2018)",
    ),
    "egyjokes": Source("PyPI package egyjokes 0.1.1", "MIT", "egyjokes"),
}


def read_texts(text_dir: Path, variety: str) -> dict[str, list[str]]:
    """Texts of one variety by source, in file order. Every line is used; a line that cannot be is a ValueError."""
    path = text_dir / f"{variety}.tsv"
    texts: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        source, tab, text = line.partition("\t")
        if not tab or not text.strip():
            raise ValueError(f"{path}:{number}: expected 'source<TAB>text', got {line[:40]!r}; fix or remove the line")
        if source not in SOURCES:
            raise ValueError(f"{path}:{number}: source {source!r} has no licence on record; add it to sources.py")
        texts.setdefault(source, []).append(text)
    return texts
