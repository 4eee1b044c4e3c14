"""The page of duplicates: one HTML file, pictures inside, no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from extract.check.duplicates import Cluster
from extract.check.hashes import thumbnail_of
from extract.check.report import Check
from extract.errors import RefusedImageError
from extract.inputs.files import ImageFiles
from extract.inputs.images import Decoder, make_decoder
from features_store import Index
from features_store.atomic import atomic_write
from features_store.schema import PART_NAMES

MAX_CLUSTERS, MAX_PICTURES, SIDE = 200, 8, 160

# Ids come from file names that anyone may have chosen: Jinja escapes each value.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Duplicates in {{ corpus }}</title>
<style>
body{font:15px/1.4 system-ui,sans-serif;margin:2rem;max-width:75rem;color:#222}
section{border-top:1px solid #ccc;padding:.7rem 0}figure{display:inline-block;margin:.3rem .8rem .3rem 0;
width:{{ side }}px;vertical-align:top}img{max-width:100%}figcaption{font-size:12px;overflow-wrap:anywhere}
.warn{color:#a00}
</style></head><body>
<h1>Duplicates in {{ corpus }}</h1>
<p>{{ total }} clusters{% if total > shown|length %}; the {{ shown|length }} most serious are shown{% endif %}.</p>
{% for cluster in shown %}<section>
<p>{{ "equal bytes" if cluster.exact else "near-duplicates" }}, {{ cluster.size }} images
{%- if cluster.crosses %} <span class="warn">across the parts of {{ cluster.crosses|join(", ") }}</span>{% endif %}
{%- if cluster.conflicts %} <span class="warn">with different labels in {{ cluster.conflicts|join(", ") }}</span>
{%- endif %}</p>
{% for one in cluster.pictures %}<figure>
{% if one.data %}<img alt="" src="data:image/jpeg;base64,{{ one.data }}">{% else %}(no picture){% endif %}
<figcaption>{{ one.id }}{% for fact in one.facts %}<br>{{ fact }}{% endfor %}</figcaption></figure>
{% endfor %}</section>
{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class _Picture:
    id: str
    data: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class _Shown:
    exact: bool
    size: int
    crosses: tuple[str, ...]
    conflicts: tuple[str, ...]
    pictures: tuple[_Picture, ...]


def write_page(done: Check, source: ImageFiles, path: Path, *, force: bool = False) -> None:
    """Write the page: clusters with different labels first, then those across splits, then the others.

    Raises ExistsError.
    """
    from jinja2 import Environment

    decode = make_decoder("pillow")
    order = sorted(done.clusters, key=lambda one: (not one.conflicts, not one.crosses, not one.exact, one.rows))
    shown = [_shown(one, done.index, source, decode) for one in order[:MAX_CLUSTERS]]
    template = Environment(autoescape=True).from_string(_PAGE)
    text = template.render(corpus=done.corpus, total=len(order), shown=shown, side=SIDE)
    with atomic_write(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _shown(cluster: Cluster, index: Index, source: ImageFiles, decode: Decoder) -> _Shown:
    pictures = tuple(_picture(row, index, source, decode) for row in cluster.rows[:MAX_PICTURES])
    return _Shown(cluster.exact, len(cluster.rows), cluster.crosses, cluster.conflicts, pictures)


def _picture(row: int, index: Index, source: ImageFiles, decode: Decoder) -> _Picture:
    try:
        thumbnail = thumbnail_of(source.read(row), decode, side=SIDE)
    except RefusedImageError:
        thumbnail = None
    data = base64.b64encode(thumbnail).decode() if thumbnail else ""
    return _Picture(str(index.ids[row]), data, tuple(_facts(row, index)))


def _facts(row: int, index: Index) -> Sequence[str]:
    facts = []
    for name, split in index.splits.items():
        value = int(split.values[row])
        if value >= 0:
            facts.append(f"{name}: {PART_NAMES[value] if split.kind == 'parts' else f'fold {value}'}")
    for name, labels in index.labels.items():
        if not labels.known[row]:
            continue
        values, classes = labels.values[row], labels.task.classes
        if labels.task.kind == "single":
            facts.append(f"{name}: {classes[int(values)]}")
        elif labels.task.kind == "multi":
            present = [one for one, value in zip(classes, values.tolist(), strict=True) if value]
            facts.append(f"{name}: {', '.join(present) or 'none'}")
        else:
            facts.append(f"{name}: {', '.join(f'{value:.2f}' for value in values.tolist())}")
    return facts
