"""`sbr fetch`: the data sets of the Synth-by-Reg paper, downloaded and ready to run.

Below its folder come the data set's files in their own layout, and what is made of them:
``sections.tsv``, the manifest of a prealigned brain, and ``brain.tsv``, a sheet of brains with that
brain as its one row. ``synthbyreg_files.tsv`` beside this file lists path, size and sha256 of every
file of the repository named here, at one commit of it.

Contents of the data set (the same for each section ``slice_NNN``):

===========================  ==================================================================
``histo/images``             raw section; its crop differs from section to section
``histo/images_affine``      the section on the grid of its MRI plane, by the published affine
``histo/affine``             BigBrain: that affine, 4x4; MRI-plane px (column, row) -> raw px
``mri/images``               the MRI plane
``…/labels``, ``…_affine``   Allen: classes as colours; where ``slice_NNN_new.png`` exists it takes
                             the place of ``slice_NNN.png``. BigBrain: masks, not 0 in the tissue
``slice_id.txt``             the sections of the paper; Allen: their positions, in 0.05 mm
===========================  ==================================================================
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sbr_core.errors import ConfigError, DownloadError, ImageError
from sbr_core.io.downloads import RemoteFile, fetch_files
from sbr_core.io.images import read_colours, read_labels, write_png
from sbr_core.io.tables import read_tsv, write_tsv

logger = logging.getLogger(__name__)

FILE_LIST = Path(__file__).with_name("synthbyreg_files.tsv")
BASE_URL = (
    "https://raw.githubusercontent.com/acasamitjana/SynthByReg/"
    "1b67b630fc4e8e03be210d6fb39210b722296902/"
)
"""The authors' repository at the commit whose files `FILE_LIST` lists."""
_CLASS_OF_CHANNELS = np.array([0, 1, 2, 0, 3, 0, 0, 4], np.uint8)
"""Class of a label's colour: 0 none, 1 cerebellar grey matter (red), 2 white matter (green), 3 grey
matter (blue), 4 cerebellar white matter (white). The place in the table is that of the channels
that are not 0, as bits from red to blue; two such channels make no class."""


@dataclass(frozen=True)
class _DataSet:
    """One data set of the paper.

    Attributes
    ----------
    folder : its folder in the repository.
    terms : who may use it, in one line.
    number : column of ``slice_id.txt`` that positions are counted in.
    spacing_mm : what 1 in that column stands for.
    pixel_mm : of the grids of its MRI planes, and of the sections resampled to them.
    files : column of the manifest -> file, ``{}`` in place of the slice's name.
    """

    folder: str
    terms: str
    number: str
    spacing_mm: float
    pixel_mm: float
    files: Mapping[str, str]


DATA_SETS = {
    "allen": _DataSet(
        "data/Allen_labels",
        "(c) Allen Institute for Brain Science, Allen Human Brain Atlas; for research and other"
        " noncommercial use with citation, see https://alleninstitute.org/terms-of-use/",
        "SLICE_ID_MM",
        0.05,  # distance of the atlas's numbered sections
        0.25,
        {
            "image": "histo/images_affine/{}.png",
            "mri_image": "mri/images/{}.png",
            "labels": "classes/histo/labels_affine/{}.png",
            "mri_labels": "classes/mri/labels/{}.png",
            "image_raw": "histo/images/{}.png",
        },
    ),
    "bigbrain": _DataSet(
        "data/BigBrain",
        "BigBrain (Amunts et al., Science 2013, doi:10.1126/science.1235381); CC BY-NC-SA 4.0,"
        " see https://creativecommons.org/licenses/by-nc-sa/4.0/",
        "SLICE_ID",
        0.4,  # its slices are cut from a volume of this voxel
        0.4,
        {
            "image": "histo/images_affine/{}.png",
            "mask": "histo/labels_affine/{}.png",
            "mri_image": "mri/images/{}.png",
            "mri_mask": "mri/labels/{}.png",
            "image_raw": "histo/images/{}.png",
            "affine": "histo/affine/{}.txt",
        },
    ),
}


def run(
    options: None, dataset: str, *, out_dir: Path | None = None, base_url: str | None = None
) -> None:
    """Download a data set of the paper and write its manifest.

    Also its sheet of brains, for the workflow.

    Parameters
    ----------
    dataset : allen or bigbrain.
    out_dir : folder it comes to (default: data/DATASET). Files that are right already are neither
        downloaded nor written again.
    base_url : where the repository's files are (default: GitHub).

    Raises
    ------
    ConfigError
        No such data set.
    DownloadError
        A file that cannot be had or is not the one in the list; a folder that cannot be written.
    """
    if dataset not in DATA_SETS:
        raise ConfigError(f"dataset: expected one of {', '.join(DATA_SETS)}, found {dataset!r}")
    chosen = DATA_SETS[dataset]
    print(f"{dataset}: {chosen.terms}", flush=True)
    out_dir = out_dir or Path("data") / dataset
    files = _listed(chosen.folder, base_url or BASE_URL)
    try:
        fetched = fetch_files(files, out_dir)
        rows = _rows(chosen, out_dir)
        for column in {"labels", "mri_labels"} & set(chosen.files):
            for row in rows:
                _write_classes(out_dir, row[column], files)
        write_tsv(out_dir / "sections.tsv", rows)
        brain = {
            "brain": dataset,
            "sections": str(out_dir / "sections.tsv"),
            "prealigned": True,
            "notes": chosen.terms,  # they go wherever the row goes
        }
        write_tsv(out_dir / "brain.tsv", [brain])
    except OSError as error:
        raise DownloadError(
            f"{error.filename or out_dir}: not writable: {error.strerror}"
        ) from None
    logger.info(f"fetch: {fetched} of {len(files)} files downloaded, the rest was there")
    print(
        f"{len(rows)} sections in {out_dir / 'sections.tsv'}; to run them:\n"
        f"snakemake --cores all --config brains={out_dir / 'brain.tsv'} preset=cpu"
    )


def _listed(folder: str, base_url: str) -> dict[str, RemoteFile]:
    """The files of a data set, by their names in its folder."""
    files = {}
    for row in read_tsv(FILE_LIST)[1]:
        if row["path"].startswith(f"{folder}/"):
            name = row["path"].removeprefix(f"{folder}/")
            url = f"{base_url.rstrip('/')}/{quote(row['path'])}"
            files[name] = RemoteFile(url, int(row["bytes"]), row["sha256"])
    return files


def _rows(chosen: _DataSet, folder: Path) -> list[dict[str, Any]]:
    """Rows of the manifest by position; the lists of sections may be shuffled."""
    with open(folder / "slice_id.txt", encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    rows = [
        {
            "section": line["SLICE_ID"],
            "position_mm": round(int(line[chosen.number]) * chosen.spacing_mm, 2),
            "pixel_size_mm": chosen.pixel_mm,
            **{column: file.format(line["SLICE_NAME"]) for column, file in chosen.files.items()},
        }
        for line in lines
    ]
    return sorted(rows, key=lambda row: row["position_mm"])


def _write_classes(folder: Path, name: str, names: Collection[str]) -> None:
    """Label image of a coloured one, unless it is there: a newer file would be run anew.

    Parameters
    ----------
    folder, names : of the data set, and the names of its files in it.
    name : of the image to be written, ``classes/`` and then that of the coloured one.
    """
    coloured = name.removeprefix("classes/")
    revised = coloured.replace(".png", "_new.png")
    classes = classes_of_colours(read_colours(folder / (revised if revised in names else coloured)))
    try:
        same = np.array_equal(read_labels(folder / name), classes)
    except ImageError:
        same = False
    if not same:
        write_png(folder / name, classes)


def classes_of_colours(colours: np.ndarray) -> np.ndarray:
    """Classes (rows, columns), uint8, of colours (rows, columns, 3)."""
    return _CLASS_OF_CHANNELS[(colours > 0) @ np.array([1, 2, 4])]
