"""Makers of the corpora of mean ratings."""

from __future__ import annotations

from pathlib import Path

from layouts import NAN, Expected, maker, picture, pictures, text


@maker("oasis")
def oasis(root: Path) -> Expected:
    """Carriage returns alone, an unnamed column, blanks behind a theme, Scene beside Scenery."""
    rows = [
        ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N",
        "I1,Acorns 1,Object,Pixabay,4.68627451,1.2,102,2.346938776,1.6,98",
        'I2,"Crosswalk 1 ",Scene,Pixabay,4,1.2,102,3.5,1.6,98',
        "I3,War 2 ,Scenery,Pixabay,1.5,1.2,102,5.25,1.6,98",
    ]
    text(root / "OASIS.csv", "\n".join(rows) + "\n", newline="\r")
    pictures(root / "images", ["Acorns 1.jpg", "Crosswalk 1.jpg", "War 2.jpg"])
    values = [[4.68627451, 2.346938776], [4, 3.5], [1.5, 5.25]]
    return Expected(root, ["Acorns 1", "Crosswalk 1", "War 2"], {"valence_arousal": values, "category": [1, 3, 3]})


@maker("gaped")
def gaped(root: Path) -> Expected:
    """Deviations in parentheses, empty lines, and the folder within a folder of the same name."""
    base = root / "GAPED" / "GAPED"
    head = "Picture  Valence (SD)  Arousal (SD)  Internal (SD)\n"
    text(base / "A_with SD.txt", f"{head}A001.bmp  8.5  (9.1)  70.25  (20)  3.1 (2)\n\nA002.bmp 12 (1) 60 (2) 1 (1)\n")
    text(base / "Sp_with SD.txt", f"{head}Sp001.bmp\t30.5\t(3)\t55\t(4)\t1\t(1)\n", newline="\r\n")
    pictures(base, ["A/A001.bmp", "A/A002.bmp", "Sp/Sp001.bmp"])
    values = [[8.5, 70.25], [12, 60], [30.5, 55]]
    ids = ["A/A001.bmp", "A/A002.bmp", "Sp/Sp001.bmp"]
    return Expected(root, ids, {"valence_arousal": values, "category": [0, 0, 5]})


@maker("naps")
def naps(root: Path) -> Expected:
    """Semicolons, no header, decimal commas."""
    text(
        root / "NAPS_valence_arousal_2014.csv", "Animals_001_h;Animals;1;h;a cat;6,5;4,25\nFaces_001_v;Faces;1;v;;3;7\n"
    )
    pictures(root, ["Animals_001_h.jpg", "Faces_001_v.jpg"])
    return Expected(root, ["Animals_001_h", "Faces_001_v"], {"valence_arousal": [[6.5, 4.25], [3, 7]]})


@maker("iaps")
def iaps(root: Path) -> Expected:
    """Lines before the header, a slide that occurs twice, a dot for what is missing, upper-case suffixes."""
    rows = [
        "IAPS All Subjects",
        "",
        "desc\tIAPS\tvalmn\tvalsd\taromn\tarosd\tdom1mn\tdom1sd\tset",
        "Snake\t1050\t3.5\t2\t6.75\t1.7\t.\t.\t1",
        "Boy\t2345.1\t2.25\t1\t5.5\t2\t3\t1\t7",
        "Snake\t1050\t3.0\t2\t7.25\t1.7\t.\t.\t9",
    ]
    text(root / "AllSubjects_1-20.txt", "\n".join(rows), newline="\r\n")
    pictures(root / "IAPS 1-20 Images", ["1050.JPG", "2345.1.jpg"])
    return Expected(root, ["1050", "2345.1"], {"valence_arousal": [[3.25, 7.0], [2.25, 5.5]]})


@maker("smid")
def smid(root: Path) -> Expected:
    """The column of the images has no title; names have no suffix, and files have several."""
    head = "valence_mean,arousal_mean,moral_mean,harm_mean,fairness_mean,ingroup_mean,authority_mean,purity_mean"
    text(root / "SMID_norms.csv", f'"",{head}\nb1_p1,4.5,2,4,1,2,3,4,5\nb1_p2,1.5,3.5,1,5,4,3,2,\n')
    picture(root / "SMID_images_400px/img/b1_p1.jpeg", 1)
    picture(root / "SMID_images_400px/img/b1_p2.png", 2)
    labels = {
        "valence_arousal": [[4.5, 2], [1.5, 3.5]],
        "moral": [[4], [1]],
        "foundations": [[1, 2, 3, 4, 5], [5, 4, 3, 2, NAN]],
    }
    return Expected(root, ["b1_p1", "b1_p2"], labels)


@maker("emomadrid")
def emomadrid(root: Path) -> Expected:
    """Three files whose lines belong together."""
    text(root / "image_names.txt", "EM0001.jpg\nEM0002.jpg\n")
    text(root / "MeanValence.txt", "-1.5\n0.25\n")
    text(root / "MeanArousal.txt", "1.75\n-2\n\n")
    pictures(root / "images", ["EM0001.jpg", "EM0002.jpg"])
    return Expected(root, ["EM0001.jpg", "EM0002.jpg"], {"valence_arousal": [[-1.5, 1.75], [0.25, -2]]})


@maker("dirti")
def dirti(root: Path) -> Expected:
    """Columns mapped by hand, semicolons."""
    text(root / "norms.csv", "Nummer;Valenz;Erregung\n1001;2,5;6\n1002;3;5,5\n")
    pictures(root / "pics", ["1001.jpg", "1002.jpg"])
    options = {"image": "Nummer", "valence": "Valenz", "arousal": "Erregung", "delimiter": ";"}
    return Expected(root, ["1001", "1002"], {"valence_arousal": [[2.5, 6], [3, 5.5]]}, options=options)


@maker("ied")
def ied(root: Path) -> Expected:
    """Columns by their usual titles."""
    text(root / "table.csv", "filename,valence,arousal\nx/1.jpg,5,4\nx/2.jpg,9,1\n")
    pictures(root, ["x/1.jpg", "x/2.jpg"])
    return Expected(root, ["x/1.jpg", "x/2.jpg"], {"valence_arousal": [[5, 4], [9, 1]]})
