"""NAPS, IAPS, DIRTI and IED: tables of valence and arousal whose columns differ from copy to copy."""

from __future__ import annotations

from functools import partial
from typing import Any

from extract.corpora.dataset import Corpus
from extract.corpora.norms import Layout, read_table

_ANY_IMAGE = ("image", "file", "filename", "file name", "picture", "name", "id", "image_id")
_ANY_VALENCE = ("valence", "valence_mean", "mean valence", "valence mean", "v")
_ANY_AROUSAL = ("arousal", "arousal_mean", "mean arousal", "arousal mean", "a")
_NAPS = Layout(
    name="naps",
    files=("NAPS_valence_arousal_2014.csv", "NAPS*.csv", "NAPS*.xls*"),
    image=("ID", "#1"),
    valence=("Valence", "#6"),
    arousal=("Arousal", "#7"),
    ends=(1.0, 9.0),
    source="mean of ratings on a scale from 1 to 9",
    delimiter=";",
)
_IAPS = Layout(
    name="iaps",
    files=("AllSubjects_1-20.txt", "AllSubjects*.txt"),
    image=("IAPS",),
    valence=("valmn",),
    arousal=("aromn",),
    ends=(1.0, 9.0),
    source="mean of ratings on a scale from 1 to 9 (SAM), all subjects",
    delimiter="\t",
    twice=True,
    preamble=True,
)
_DIRTI = Layout(
    name="dirti",
    files=("DIRTI*.csv", "*.csv"),
    image=_ANY_IMAGE,
    valence=_ANY_VALENCE,
    arousal=_ANY_AROUSAL,
    ends=(1.0, 9.0),
    source="mean of ratings on a scale from 1 to 9",
)
_IED = Layout(
    name="ied",
    files=("IED*.csv", "*.csv"),
    image=_ANY_IMAGE,
    valence=_ANY_VALENCE,
    arousal=_ANY_AROUSAL,
    ends=(1.0, 9.0),
    source="mean of ratings on a scale from 1 to 9, online",
)
_SHARED: dict[str, Any] = {
    "tasks": {"valence_arousal": "regression: means, 1 to 9"},
    "splits": {"default": "70/10/20, seeded; there is no official one"},
}
NAPS = Corpus(
    name="naps",
    title="NAPS: the Nencki Affective Picture System, 1,356 photographs",
    obtain="request form of the Nencki Institute, not for commerce; save its table of norms as CSV beside the images",
    licence="not for commerce, by request",
    citation="Marchewka, Zurawski, Jednoróg, Grabowska, The Nencki Affective Picture System, "
    "Behavior Research Methods 2014",
    reader=partial(read_table, layout=_NAPS),
    defects=("the titles of its columns differ between copies: they are mapped by options, or taken by position",),
    options=_NAPS.options(),
    published={"images": 1356},
    **_SHARED,
)
IAPS = Corpus(
    name="iaps",
    title="IAPS: the International Affective Picture System",
    obtain="by request from the CSEA; give the folder with AllSubjects_1-20.txt and the images",
    licence="restricted: for research, by request, not to be passed on",
    citation="Lang, Bradley, Cuthbert, International Affective Picture System (IAPS), technical report",
    reader=partial(read_table, layout=_IAPS),
    defects=(
        "some slides occur twice, in different sets: their ratings are averaged",
        "some copies have lines before the header, and '.' for what was not rated",
    ),
    options=_IAPS.options(),
    **_SHARED,
)
DIRTI = Corpus(
    name="dirti",
    title="DIRTI: the Disgust-Related-Images database, 300 photographs",
    obtain="see its paper; save its table of norms as CSV beside the images",
    licence="see its page",
    citation="Haberkamp, Glombiewski, Schmidt, Barke, The DIsgust-RelaTed-Images (DIRTI) database, "
    "Behaviour Research and Therapy 2017",
    reader=partial(read_table, layout=_DIRTI),
    defects=("the layout of its norms could not be verified: map the columns if they are not found by their titles",),
    options=_DIRTI.options(),
    published={"images": 300},
    **_SHARED,
)
IED = Corpus(
    name="ied",
    title="IED: the Image Emotion Database of Kim et al., 10,766 images",
    obtain="from its authors; save its table as CSV beside the images",
    licence="no licence is known to us",
    citation="Kim, Kim, Kim, Lee, Building Emotional Machines: Recognizing Image Emotions through Deep Neural "
    "Networks, 2017",
    reader=partial(read_table, layout=_IED),
    defects=("the layout of its table could not be verified: map the columns if they are not found by their titles",),
    options=_IED.options(),
    published={"images": 10_766},
    **_SHARED,
)
