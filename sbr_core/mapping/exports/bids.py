"""Results as BIDS derivatives: names, sidecars, and a list of what BIDS has no name for yet.

BIDS knows images of microscopy of samples (``micr``), of which sections are some, and MRIs and
masks (``anat``). It has no names yet for transforms (``_xfm``) and for volumes of microscopy in
NIfTI; these are there, named as its proposals have it, and listed in ``.bidsignore``.
Specification: https://bids-specification.readthedocs.io/en/v1.11.1/derivatives/introduction.html
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sbr_core import __version__
from sbr_core.artifacts import names
from sbr_core.errors import ConfigError
from sbr_core.io.files import json_text
from sbr_core.io.sums import check_sum
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import read_plane, read_volume
from sbr_core.mapping.brain import Brain, Section
from sbr_core.mapping.exports import itk
from sbr_core.mapping.exports.files import Export

VERSION = "1.11.1"
MRI_SUFFIXES = (
    *("T1w", "T2w", "PDw", "T2starw", "FLAIR", "PDT2", "inplaneT1", "inplaneT2", "UNIT1", "angio"),
    *("T1map", "T2map", "T2starmap", "R1map", "R2map", "R2starmap", "PDmap", "MTRmap"),
)
"""Of BIDS, for anatomical MRIs."""
_SUFFIX_OF_POLARITY = {"bright_background": "BF"}
"""Of microscopy: bright field; otherwise fluorescence."""
_FLUORESCENCE = "FLUO"
_SHOWN, _MOST_SHOWN = 0.05, 0.01
"""An MRI is of a brain alone where fewer voxels than this share of those outside of its mask are
brighter than this share of the brain's median."""
_IGNORED = ("*_xfm.h5", "*_xfm.txt", "*_xfm.json", "*_desc-reassembled_*")

Files = dict[str, Callable[[Path], object]]


def bids(brain: Brain, sections: Sequence[Section], mri_suffix: str | None) -> Export:
    """The data set of one subject, whose label is the brain's.

    Parameters
    ----------
    mri_suffix : what kind of MRI it is, one of `MRI_SUFFIXES`; None leaves the MRI out.

    Raises
    ------
    ConfigError
        No such kind; sections whose ids are the same once they consist of letters and digits only.
    """
    if mri_suffix is not None and mri_suffix not in MRI_SUFFIXES:
        raise ConfigError(
            f"--mri-suffix: expected one of {', '.join(MRI_SUFFIXES)}, found {mri_suffix!r}"
        )
    name = brain.results.resolve().name
    subject = f"sub-{label(name)}"
    samples = _samples(sections)
    files: Files = {
        "dataset_description.json": _json(_description(brain, name)),
        "README.md": _text(_readme(brain, name)),
        ".bidsignore": _text("\n".join(_IGNORED) + "\n"),
        "participants.tsv": partial(_write_participants, subject),
        "samples.tsv": partial(_write_samples, subject, samples),
        "samples.json": _json(_ABOUT_SAMPLES),
    }
    for section, sample in samples.items():
        files |= _of_section(section, f"{subject}/micr/{subject}_{sample}")
    doubts = []
    if brain.has_mri:
        files |= _of_mri(brain, f"{subject}/anat/{subject}", mri_suffix)
        if mri_suffix is None:
            doubts.append("the MRI is left out, for it is not known what kind it is: --mri-suffix")
    files |= _of_volumes(brain, name, f"{subject}/micr/{subject}")
    return Export(files, (), tuple(doubts))


def label(text: str) -> str:
    """Text as a label of BIDS: its letters and digits; ConfigError where it has none."""
    cleaned = re.sub(r"[^0-9a-zA-Z]", "", text)
    if not cleaned:
        raise ConfigError(f"{text!r}: has no letter or digit, and a label of BIDS has nothing else")
    return cleaned


def _samples(sections: Sequence[Section]) -> dict[Section, str]:
    """Section -> ``sample-LABEL``."""
    samples: dict[Section, str] = {}
    taken: dict[str, str] = {}
    for section in sections:
        sample = f"sample-{label(section.id)}"
        if sample in taken:
            raise ConfigError(
                f"sections {taken[sample]!r} and {section.id!r}: both are {sample} in BIDS, whose"
                " labels are of letters and digits; export them apart (--sections)"
            )
        samples[section], taken[sample] = sample, section.id
    return samples


def _json(value: Mapping[str, Any]) -> Callable[[Path], object]:
    return _text(json_text(value))


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")


def _description(brain: Brain, name: str) -> dict[str, Any]:
    made_by = {
        "Name": "sbr_core",
        "Version": __version__,
        "Description": f"Registration of sections to the MRI by the method {brain.method}",
    }
    return {
        "Name": f"{name}: histology registered to the MRI of the same brain",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
    }


def _readme(brain: Brain, name: str) -> str:
    return f"""# {name}

Sections of histology registered to the MRI of the same brain (sbr_core {__version__}, method
{brain.method}).

- `micr/*_desc-registered_*.tif`: each section as it lies in its plane of the MRI, at working
  resolution; a sample for each section, see `samples.tsv`.
- `micr/*_mode-image_xfm.h5`: ITK composites of three dimensions. `from-A_to-B` resamples an image
  of A onto B. A section is a volume of one layer: x and y are mm of its file, z the distance.
- `micr/*_desc-reassembled_*.nii.gz`: the volume of all sections in the space of the MRI.
- `anat/`: the MRI as it was used, and the mask of its brain.

What BIDS has no name for yet is listed in `.bidsignore`.
"""


_ABOUT_SAMPLES = {
    "position_mm": {"Description": "Position of the section along the stack", "Units": "mm"},
    "section": {"Description": "Id of the section in the manifest"},
    "thickness_um": {"Description": "Thickness of the section as it was cut", "Units": "um"},
}


def _write_participants(subject: str, path: Path) -> None:
    write_tsv(path, [{"participant_id": subject}])


def _write_samples(subject: str, samples: Mapping[Section, str], path: Path) -> None:
    rows = []
    for section, sample in samples.items():
        thickness_um = section.prepared.thickness_um
        rows.append(
            {
                "sample_id": sample,
                "participant_id": subject,
                "sample_type": "tissue",
                "section": section.id,
                "position_mm": section.position_mm,
                "thickness_um": "n/a" if thickness_um is None else thickness_um,
            }
        )
    write_tsv(path, rows)


def _of_section(section: Section, stem: str) -> Files:
    prepared = section.prepared
    files: Files = {}
    if section.row.has(names.REGISTERED):
        stain = label(prepared.stain) if re.search(r"[0-9a-zA-Z]", prepared.stain) else ""
        suffix = _SUFFIX_OF_POLARITY.get(prepared.polarity, _FLUORESCENCE)
        image = f"{stem}{f'_stain-{stain}' if stain else ''}_desc-registered_{suffix}"
        facts: dict[str, Any] = {
            "Description": "Signal of the section, resampled onto its plane of the MRI",
            "PixelSize": [section.grid.spacing_mm] * 2,
            "PixelSizeUnits": "mm",
            "Sources": [PurePath(prepared.image).name],  # folders of a machine are nobody's concern
        }
        if prepared.stain:
            facts["SampleStaining"] = prepared.stain
        if prepared.thickness_um is not None:
            facts["SliceThickness"] = prepared.thickness_um
        files[f"{image}.tif"] = partial(_write_registered, section)
        files[f"{image}.json"] = _json(facts)
    if section.brain.has_mri:
        for ending, steps, what in (
            (itk.TO_SECTION, itk.to_mri_steps, "an image of the MRI onto the section"),
            (itk.TO_MRI, itk.to_section_steps, "the section onto the MRI"),
        ):
            files[f"{stem}{ending}.h5"] = partial(itk.write_composite, section, steps)
            about = f"ITK composite of three dimensions, LPS mm: resamples {what}"
            files[f"{stem}{ending}.json"] = _json({"Description": about})
    return files


def _write_registered(section: Section, path: Path) -> None:
    import tifffile

    image, spacing_mm = read_plane(section.row.intact(names.REGISTERED))
    per_cm = 10 / spacing_mm
    tifffile.imwrite(
        path,
        image.astype(np.float32),
        compression="deflate",
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
    )


def _of_mri(brain: Brain, stem: str, suffix: str | None) -> Files:
    folder = brain.results / "prepare"
    about_mask = {
        "Description": "Brain of the MRI that sections were registered to",
        "Type": "Brain",
    }
    files: Files = {}
    if suffix is not None:
        mri = f"{stem}_desc-preproc_{suffix}"
        files[f"{mri}.nii.gz"] = partial(_copy, folder / names.MRI_VOLUME)
        files[f"{mri}.json"] = partial(_write_about_mri, brain)
        about_mask |= {
            "Sources": [f"bids::{mri}.nii.gz"],
            "SpatialReference": f"bids::{mri}.nii.gz",
        }
    files[f"{stem}_desc-brain_mask.nii.gz"] = partial(_copy, folder / names.MRI_MASK_VOLUME)
    files[f"{stem}_desc-brain_mask.json"] = _json(about_mask)
    return files


def _write_about_mri(brain: Brain, path: Path) -> None:
    """With whether there is anything but the brain in the MRI, which BIDS asks for."""
    mri, mask = (
        read_volume(brain.results / "prepare" / name).data
        for name in (names.MRI_VOLUME, names.MRI_MASK_VOLUME)
    )
    shown = np.abs(mri) > _SHOWN * np.median(np.abs(mri[mask > 0]))
    is_stripped = bool(np.mean(shown[mask == 0]) < _MOST_SHOWN) if np.any(mask == 0) else True
    about = {
        "Description": "The MRI that sections were registered to",
        "SkullStripped": is_stripped,
    }
    path.write_text(json_text(about), encoding="utf-8")


def _of_volumes(brain: Brain, name: str, stem: str) -> Files:
    """The volumes that were reassembled, of each stain group; none where that is not done."""
    space = "mri" if brain.has_mri else "stack"
    folder = brain.results / brain.method / names.VOLUME
    files: Files = {}
    for group in names.volume_groups(folder, name, space):
        start = f"{stem}{names.stain_entity(group)}_space-{space}_desc-reassembled"
        for kind in ("histology", "coverage", "labels"):
            path = names.volume_file(folder, name, space, kind, group)
            if path.is_file():
                files[f"{start}_{kind}.nii.gz"] = partial(_copy, path)
    return files


def _copy(source: Path, path: Path) -> None:
    check_sum(source)
    shutil.copyfile(source, path)
