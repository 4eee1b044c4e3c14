"""The page of duplicates: one HTML file, pictures inside, no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extract.errors import RefusedImageError
from extract.inputs.files import ImageFiles
from extract.inputs.images import Decoder, make_decoder
from features_store import Index
from features_store.atomic import atomic_write

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
<p>{{ "equal bytes" if cluster.exact else "near-duplicates" }}, {{ cluster.ids|length }} images
{%- if cluster.crosses_splits %}
 <span class="warn">across the parts of {{ cluster.crosses_splits|join(", ") }}</span>{% endif %}
{%- if cluster.conflicting_tasks %}
 <span class="warn">with different labels in {{ cluster.conflicting_tasks|join(", ") }}</span>{% endif %}</p>
{% for picture in cluster.pictures %}<figure>
{% if picture.data %}<img alt="" src="data:image/jpeg;base64,{{ picture.data }}">{% else %}(no picture){% endif %}
<figcaption>{{ picture.id }}{% for fact in picture.facts %}<br>{{ fact }}{% endfor %}</figcaption></figure>
{% endfor %}</section>
{% endfor %}</body></html>
"""


def write_page(record: Mapping[str, Any], index: Index, files: ImageFiles, path: Path, *, force: bool = False) -> None:
    """Write the page of a check: clusters with different labels first, then those across splits, then the others."""
    from jinja2 import Environment

    decode = make_decoder("pillow")
    harm = ("conflicting_tasks", "crosses_splits", "exact")
    order = sorted(record["duplicates"], key=lambda one: [not one[key] for key in harm])
    row_of = {name: row for row, name in enumerate(index.ids.tolist())}
    shown = []
    for cluster in order[:MAX_CLUSTERS]:
        rows = {name: row_of[name] for name in cluster["ids"][:MAX_PICTURES]}
        pictures = [
            {"id": name, "data": _thumbnail(files, row, decode), "facts": _facts(row, index)}
            for name, row in rows.items()
        ]
        shown.append({**cluster, "pictures": pictures})
    template = Environment(autoescape=True).from_string(_PAGE)
    text = template.render(corpus=record["corpus"], total=len(order), shown=shown, side=SIDE)
    with atomic_write(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _thumbnail(files: ImageFiles, row: int, decode: Decoder) -> str:
    """Return a small JPEG of an image in base64, or "" if the image cannot be read or decoded."""
    from PIL import Image

    try:
        picture = Image.fromarray(decode(files.read(row)))
    except RefusedImageError:
        return ""
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def _facts(row: int, index: Index) -> list[str]:
    """Return the part of an image in each split, and its label in each task, in words."""
    facts = []
    for name, split in index.splits.items():
        value = int(split.values[row])
        if value >= 0:
            facts.append(f"{name}: {split.name_of(value)}")
    for name, labels in index.labels.items():
        if labels.known[row]:
            facts.append(f"{name}: {labels.task.form.words(labels.values[row], labels.task.classes)}")
    return facts
