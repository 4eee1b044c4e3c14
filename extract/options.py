"""Options that several commands of stage 1 share: where a corpus lies, and its own options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from extract.errors import CorpusError

if TYPE_CHECKING:
    from extract.corpora import Corpus

__all__ = ["corpus_place", "key_values"]


def corpus_place(corpus: Corpus, data: list[str] | None) -> Path | str | dict[str, Path | str] | None:
    """Return the place of a corpus, or of each member of a union; None = its own default.

    Raises CorpusError.
    """
    if not data:
        return None
    if not corpus.members:
        if len(data) > 1:
            msg = f"corpus {corpus.name!r} has one --data; got {len(data)}"
            raise CorpusError(msg)
        return _path_or_url(data[0])
    if wrong := [text for text in data if "=" not in text]:
        msg = f"--data {wrong[0]}: corpus {corpus.name!r} has several members; write --data NAME=PATH for each"
        raise CorpusError(msg)
    return {name: _path_or_url(path) for name, _, path in (text.partition("=") for text in data)}


def _path_or_url(text: str) -> Path | str:
    from extract.inputs.files import is_url

    return text if is_url(text) else Path(text)


def key_values(texts: list[str]) -> dict[str, str]:
    """Part ``KEY=VALUE`` texts.

    Raises CorpusError.
    """
    for text in texts:
        if "=" not in text:
            msg = f"--option {text!r} has no '='; write --option KEY=VALUE"
            raise CorpusError(msg)
    return dict(text.split("=", 1) for text in texts)
