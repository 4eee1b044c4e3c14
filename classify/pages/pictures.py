"""Small pictures for the page, as data URIs: found through the images' ids, made with Pillow where it is installed."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from classify.json_file import read_regular

__all__ = ["MAX_BYTES", "Pictures", "Thumbnail"]

MAX_BYTES = 3_300_000  # of all pictures of a page, which is to stay under 5 MB
SIDE = 144  # pixels of the longer side of a thumbnail, shown at two thirds of it
_PLACES = ("", "images")  # below the corpus' folder, where ids may begin
_MAX_PIXELS = 120_000_000
_MAX_FILE = 256 * 2**20  # bytes
_QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """A picture that a page can hold.

    Parameters
    ----------
    uri : str
        ``data:image/jpeg;base64,...``
    width, height : int
        At which it is shown, in pixels.
    """

    uri: str
    width: int
    height: int


@dataclass
class Pictures:
    """The images of a corpus, by id.

    Parameters
    ----------
    root : Path
        The folder of the corpus.
    spent : list of int
        Bytes of pictures made so far, shared by all that go into one page.
    """

    root: Path
    spent: list[int] = field(default_factory=lambda: [0])
    _made: dict[tuple[Path, int], Thumbnail | None] = field(default_factory=dict)

    @classmethod
    def of_corpus(cls, corpus: str, data: Path | None, spent: list[int] | None = None) -> Pictures:
        """Return the pictures of a corpus: in *data*, or in the folder of its name there or in ``data``.

        A report that came from somebody else may call its corpus anything: a name that isn't one folder's is not
        looked for.
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
        return None if path is None else self.of_file(path)

    def path_of(self, image: str) -> Path | None:
        """Return the file of an image, links followed; None where it isn't there or would lie outside of the folder."""
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
        """Return the thumbnail of a picture file, its longer side *side* pixels."""
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
        with Image.open(io.BytesIO(read_regular(path.resolve(), _MAX_FILE))) as opened:
            if opened.width * opened.height > _MAX_PIXELS:
                return None
            opened.draft("RGB", (side, side))
            picture = _flat(opened, side)
    except Exception:
        return None
    bytes_ = io.BytesIO()
    picture.info.clear()  # Pillow hands on the file's comment, which is nobody's to share
    picture.save(bytes_, "JPEG", quality=_QUALITY, optimize=True)
    encoded = base64.b64encode(bytes_.getvalue()).decode("ascii")
    shown = [max(1, round(length * 2 / 3)) for length in picture.size]
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", *shown)


def _flat(opened: Any, side: int) -> Any:
    """Upright, without transparency, at most *side* pixels on each side."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(opened)
    picture = picture.convert("RGBA" if "A" in picture.getbands() or "transparency" in picture.info else "RGB")
    picture.thumbnail((side, side))
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        picture = ground.convert("RGB")
    return picture
