"""The table of corpora."""

from __future__ import annotations

from extract.corpora import (
    affective_ratings,
    artphoto,
    b_t4sa,
    crowdflower,
    emoji,
    emoset,
    emotionroi,
    fi,
    folders,
    gaped,
    lists,
    mediaeval21,
    oasis,
    t4sa,
    tables,
    twitter1,
    union,
)
from extract.corpora.dataset import Corpus, Option, Reading
from extract.errors import CorpusError
from features_store.errors import unknown_name

__all__ = ["CORPORA", "Corpus", "Option", "Reading", "find_corpus"]

CORPORA: dict[str, Corpus] = {
    one.name: one
    for one in (
        emoji.CORPUS,
        folders.CORPUS,
        tables.CORPUS,
        lists.CORPUS,
        t4sa.CORPUS,
        b_t4sa.CORPUS,
        b_t4sa.SUBSET,
        t4sa.SECOND,
        twitter1.CORPUS,
        twitter1.PHOTO_TWEETS,
        emotionroi.EMOTION6,
        emotionroi.EMOTIONROI,
        fi.CORPUS,
        mediaeval21.CORPUS,
        oasis.OASIS,
        gaped.GAPED,
        affective_ratings.NAPS,
        affective_ratings.IAPS,
        oasis.SMID,
        gaped.EMOMADRID,
        affective_ratings.DIRTI,
        affective_ratings.IED,
        artphoto.ARTPHOTO,
        artphoto.ABSTRACT,
        emoset.EMOSET,
        emoset.FLICKR_LDL,
        emoset.TWITTER_LDL,
        crowdflower.CORPUS,
    )
}
CORPORA["jndataset"] = union.jndataset(CORPORA.__getitem__)


def find_corpus(name: str) -> Corpus:
    """Look a corpus up; ``union:A,B`` joins several.

    Raises CorpusError.
    """
    if name.startswith(union.PREFIX):
        return union.union_of(name, find_corpus)
    if name not in CORPORA:
        raise CorpusError(unknown_name("corpus", name, [*CORPORA, f"{union.PREFIX}A,B"]))
    return CORPORA[name]
