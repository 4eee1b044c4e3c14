"""The corpora by name: ``cards.toml`` describes each, and names the function of this folder that reads it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from extract.corpora import union
from extract.corpora.dataset import Corpus, Dataset, Option, Place
from extract.errors import CorpusError
from features_store.errors import unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser under its older name
    import tomli as tomllib

__all__ = ["CORPORA", "Corpus", "Dataset", "Option", "find_corpus", "read_corpus"]


def _read_with(where: str, name: str, data: Any, options: Mapping[str, Any]) -> Dataset:
    """Call a reader, written ``module:function`` as in entry points; its module is imported now."""
    module, _, function = where.partition(":")
    dataset: Dataset = getattr(import_module(f"extract.corpora.{module}"), function)(name, data, options)
    return dataset


def _corpora() -> dict[str, Corpus]:
    """Read the cards."""
    cards = tomllib.loads((Path(__file__).parent / "cards.toml").read_text(encoding="utf-8"))
    corpora: dict[str, Corpus] = {}
    for name, card in cards.items():
        options = {key: Option(**option) for key, option in card.pop("options", {}).items()}
        if "members" in card:  # a union with a card: what the card says, and the rest from the members
            whole = union.union_corpus(card.pop("members"), corpora.__getitem__)
            card["defects"] = [*card.get("defects", ()), *whole.defects]
            card["tasks"] = {**card.get("tasks", {}), **whole.tasks}
            card["citation"] = f"{card['citation']}; {whole.citation}"
            corpora[name] = replace(whole, name=name, options={**whole.options, **options}, **card)
        else:
            reader = partial(_read_with, card.pop("reader"))
            corpora[name] = Corpus(name=name, reader=reader, options=options, **card)
    return corpora


CORPORA = _corpora()


def find_corpus(name: str) -> Corpus:
    """Look a corpus up; ``union:A,B`` joins several."""
    if name.startswith(union.PREFIX):
        members = [one.strip() for one in name.removeprefix(union.PREFIX).split(",") if one.strip()]
        return union.union_corpus(members, find_corpus)
    if name not in CORPORA:
        raise CorpusError(unknown_name("corpus", name, [*CORPORA, f"{union.PREFIX}A,B"]))
    return CORPORA[name]


def read_corpus(name: str, data: Place | None = None, **options: object) -> Dataset:
    """Read a labelled image corpus: its ids, labels, splits and groups, and where its image files are.

    Parameters
    ----------
    name : str
        A corpus of ``extract corpora``, such as ``"oasis"``, or ``"union:A,B"``.
    data : path, str or mapping, optional
        Its folder, tar, zip or URL; for a union one place by the name of each member. None = the corpus' own place.
    **options
        Options of the corpus, as ``--option KEY=VALUE`` on the command line; those of a union's members are given
        as ``**{"oasis.range": "1..9"}``.

    Returns
    -------
    Dataset
        ``index`` holds ids, labels, splits and groups; ``files.read(row)`` returns the bytes of an image; ``notes``
        say what was left out, and why.

    Raises
    ------
    CorpusError
        If the corpus, an option or the data cannot be used; the message says what to do.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for place in ("joy/1.jpg", "joy/2.jpg", "fear/3.jpg"):
    ...     (folder / place).parent.mkdir(exist_ok=True)
    ...     _ = (folder / place).write_bytes(b"...")
    >>> dataset = read_corpus("folder", folder, task="emotion")
    >>> dataset.index.ids.tolist()
    ['fear/3.jpg', 'joy/1.jpg', 'joy/2.jpg']
    >>> dataset.index.labels["emotion"].task.classes
    ('fear', 'joy')
    >>> dataset.files.read(0)
    b'...'
    """
    return find_corpus(name).read(data, options)
