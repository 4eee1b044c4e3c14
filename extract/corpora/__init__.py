"""The table of corpora."""

from __future__ import annotations

from extract.corpora import emoji, folders, tables
from extract.corpora.record import Corpus, Option, Reading
from extract.errors import CorpusError
from features_store.errors import unknown_name

__all__ = ["CORPORA", "Corpus", "Option", "Reading", "find_corpus"]

CORPORA: dict[str, Corpus] = {one.name: one for one in (emoji.CORPUS, folders.CORPUS, tables.CORPUS)}


def find_corpus(name: str) -> Corpus:
    """Look a corpus up.

    Raises
    ------
    CorpusError
        If there is none of that name; the message lists those that are.
    """
    if name not in CORPORA:
        raise CorpusError(unknown_name("corpus", name, CORPORA))
    return CORPORA[name]
