"""Small pictures for the page, as data URIs, and the cards that show them: errors, doubtful labels, duplicates."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from classify.data.kinds import kind_of
from classify.json_file import read_regular
from classify.runs.findings_json import EXPLANATIONS, read_explanations
from classify.runs.folder import Run
from classify.runs.predictions import PartPredictions
from features_store.schema import Task

MAX_BYTES = 3_300_000  # of all pictures of a page, which is to stay under 5 MB
SIDE, OVERLAY_SIDE = 144, 264  # pixels of the longer side, shown at two thirds of it
MAX_ERRORS, MAX_DOUBTED, MAX_PAIRS, MAX_BARS, MAX_OVERLAYS = 12, 18, 8, 5, 12
_PLACES = ("", "images")  # below the corpus' folder, where ids may begin
_MAX_PIXELS = 120_000_000
_MAX_FILE = 256 * 2**20  # bytes
_QUALITY = 78
# Pillow knows formats that start other programs or hold scripts (EPS, PDF, WMF ...); pictures are these.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP", "HEIF")


class Thumbnail(NamedTuple):
    """A picture that a page can hold, and the size at which it is shown, in pixels."""

    uri: str  # data:image/jpeg;base64,...
    width: int
    height: int


@dataclass
class Pictures:
    """The images of a corpus, by id; *spent* counts the bytes of all pictures that go into one page."""

    root: Path
    spent: list[int] = field(default_factory=lambda: [0])
    _made: dict[tuple[Path, int], Thumbnail | None] = field(default_factory=dict)

    @classmethod
    def of_corpus(cls, corpus: str, data: Path | None, spent: list[int] | None = None) -> Pictures:
        """Return the pictures of a corpus: in *data*, or in the folder of its name there or in ``data``.

        A report that came from somebody else may name its corpus anything: only the name of one folder is looked for.
        """
        plain = Path(corpus).name == corpus and corpus not in ("", ".", "..") and not set(corpus) & set("\\:\0")
        inside = (data or Path("data")) / (corpus if plain else ".none")
        root = inside if data is None or (plain and inside.is_dir()) else data
        return cls(root, [0] if spent is None else spent)

    @property
    def there(self) -> bool:
        """Whether the folder exists."""
        return self.root.is_dir()

    @property
    def full(self) -> bool:
        """Whether a page can take no more pictures."""
        return self.spent[0] > MAX_BYTES

    def of(self, image: str) -> Thumbnail | None:
        """Return the thumbnail of an image; None where it is not there, undecodable, or one too many."""
        path = self.path_of(image)
        return None if path is None else self.of_file(path.resolve())

    def path_of(self, image: str) -> Path | None:
        """Return the file of an image, links followed; None where it is missing or would lie outside of the folder."""
        parts = PurePosixPath(image).parts
        if not parts or ".." in parts or PurePosixPath(image).is_absolute() or "\\" in image or "\0" in image:
            return None
        for place in _PLACES:
            for name in (parts[-1], f"{parts[-1]}.jpg"):
                path = self.root.joinpath(place, *parts[:-1], name)
                if self._inside(path):
                    return path
        return None

    def _inside(self, path: Path) -> bool:
        try:
            return path.is_file() and path.resolve().is_relative_to(self.root.resolve())
        except (OSError, ValueError):
            return False

    def of_file(self, path: Path, *, side: int = SIDE) -> Thumbnail | None:
        """Return the thumbnail of a picture file, which is no link, its longer side *side* pixels."""
        if (path, side) not in self._made:
            self._made[path, side] = None if self.full else _thumbnail(path, side)
        made = self._made[path, side]
        if made is None or self.full:
            return None
        self.spent[0] += len(made.uri)
        return made


def _thumbnail(path: Path, side: int) -> Thumbnail | None:
    try:
        from PIL import Image
    except ImportError:
        return None  # the page says that pictures need Pillow
    try:
        Image.init()
        formats = [one for one in _FORMATS if one in Image.OPEN]  # a build of Pillow may lack one
        with Image.open(io.BytesIO(read_regular(path, _MAX_FILE)), formats=formats) as opened:
            if opened.width * opened.height > _MAX_PIXELS:
                return None
            opened.draft("RGB", (side, side))
            picture = _flat(opened, side)
    except Exception:
        return None
    bytes_ = io.BytesIO()
    picture.info.clear()  # Pillow would copy the comment of the file, which may be private
    picture.save(bytes_, "JPEG", quality=_QUALITY, optimize=True)
    encoded = base64.b64encode(bytes_.getvalue()).decode("ascii")
    width, height = (max(1, round(length * 2 / 3)) for length in picture.size)
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", width, height)


def _flat(opened: Any, side: int) -> Any:
    """Return a picture upright, without transparency, at most *side* pixels on each side."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(opened)
    picture = picture.convert("RGBA" if "A" in picture.getbands() or "transparency" in picture.info else "RGB")
    picture.thumbnail((side, side))
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        picture = ground.convert("RGB")
    return picture


def surest_errors(task: Task, part: PartPredictions, pictures: Pictures) -> list[dict[str, Any]]:
    """Choose the images on which a run was wrong and sure of it.

    Sure is: a high probability for a wrong class (single); the label whose probability is farthest from the truth
    (multi); the largest error (regression).
    """
    kind = kind_of(task)
    score = np.asarray(part.y_score, dtype=np.float64).reshape(len(part.ids), -1)
    if kind.has_classes:
        true, predicted = kind.indicators(part.y_true), kind.decided(score)
        wrong = true != predicted
        badness = np.where(wrong & predicted if kind.exclusive else wrong, np.abs(score - true), -1.0).max(axis=1)
    else:
        truth = np.asarray(part.y_true, dtype=np.float64).reshape(score.shape)
        badness = np.abs(score - truth).max(axis=1)
    cards = []
    for i in np.argsort(-badness, kind="stable")[:MAX_ERRORS]:
        if badness[i] > 0:
            image = str(part.ids[i])
            if kind.has_classes:
                answer = _bars(task, score[i], true[i], predicted[i])
            else:
                answer = {"truth": _values(task, truth[i]), "predicted": _values(task, score[i]), "bars": []}
            cards.append({"id": image, "picture": pictures.of(image), **answer})
    return cards


def _bars(
    task: Task, score: NDArray[np.float64], true: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> dict[str, Any]:
    shown = np.argsort(-np.maximum(score, true * 2.0), kind="stable")[:MAX_BARS]  # what is true always shows
    shown = shown[np.argsort(-score[shown], kind="stable")]
    bars = [{"name": task.classes[k], "p": float(score[k]), "true": bool(true[k])} for k in shown]
    return {"truth": _names(task, true), "predicted": _names(task, predicted), "bars": bars}


def _names(task: Task, chosen: NDArray[np.bool_]) -> str:
    return ", ".join(name for name, yes in zip(task.classes, chosen, strict=True) if yes) or "none"


def _values(task: Task, values: NDArray[np.float64]) -> str:
    texts = [f"{value:.2f}".replace("-", "−") for value in values]
    if len(texts) == 1:
        return texts[0]
    return ", ".join(f"{name} {text}" for name, text in zip(task.classes, texts, strict=True))


def doubtful_labels(audit: Mapping[str, Any] | None, pictures: Pictures) -> list[dict[str, Any]]:
    """Return the doubtful labels that an audit found, the surest first, with pictures."""
    entries = audit["label_errors"]["images"][:MAX_DOUBTED] if audit else []
    return [{**entry, "picture": pictures.of(str(entry["id"]))} for entry in entries]


def duplicate_pairs(audit: Mapping[str, Any] | None, pictures: Pictures) -> list[dict[str, Any]]:
    """Return the nearest pairs of images across two parts that an audit found, with pictures."""
    found = []
    for where, across in audit["duplicates"]["across"].items() if audit else ():
        part, _, other = where.partition(" in ")
        found += [{**pair, "part": part, "other_part": other} for pair in across["pairs"]]
    found.sort(key=lambda pair: -pair["cosine"])
    return [
        {**pair, "picture": pictures.of(str(pair["id"])), "other_picture": pictures.of(str(pair["other"]))}
        for pair in found[:MAX_PAIRS]
    ]


def explained_images(run: Run, pictures: Pictures) -> dict[str, Any] | None:
    """Return the overlays that `classify explain` left in a run, with their texts; None where there are none."""
    folder = run.folder / EXPLANATIONS
    texts = read_explanations(folder / "explanations.json") or {"images": [], "deletion": None}
    files = sorted(path for path in folder.glob("*.png") if not path.is_symlink())[:MAX_OVERLAYS]
    by_file = {entry["file"]: entry for entry in texts["images"]}
    items = []
    for path in files:
        entry = by_file.get(path.name, {})
        items.append(
            {
                "picture": pictures.of_file(path, side=OVERLAY_SIDE),
                "id": entry.get("id") or path.stem,
                "method": entry.get("method", ""),
                "truth": ", ".join(entry.get("truth", ())),
                "predicted": ", ".join(entry.get("predicted", ())),
                "blocks": sorted((entry.get("blocks") or {}).items(), key=lambda one: -one[1]),
                "concepts": entry.get("concepts", [])[:5],
            }
        )
    return {"items": items, "deletion": texts["deletion"]} if items else None
