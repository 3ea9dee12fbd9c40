"""Names of published files and folders, stated once.

A file of a section is ``{section}{ending}`` in its stage's folder `SECTIONS`, its transforms in
`TRANSFORMS`; see `section_file`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SHIPPED_REGISTRAR = Path(__file__).with_name("shipped_registrar.safetensors")
"""Trained by `sbr train-shapes` with its defaults; no image of any brain went into it."""
SHIPPED_LOSSES = Path(__file__).with_name("shipped_registrar_loss.tsv")
"""The losses of that training."""

TABLE = "sections.tsv"
"""A brain's table of a stage, in its folder; also a manifest, and the values of `evaluate`."""
CHUNKS, SECTIONS, TRANSFORMS, VOLUME = "chunks", "sections", "transforms", "volume"
"""Folders of receipts, of sections' files, of a method's transforms and of its volumes."""

# prepare
IMAGE, MASK = "_image.nii.gz", "_mask.nii.gz"
MRI_VOLUME, MRI_MASK_VOLUME, MRI_FACTS = "mri.nii.gz", "mri_mask.nii.gz", "mri.json"

# check
CHECK, PASSED = "check.json", "passed"
"""The facts beside its `FINDINGS`, and what a brain waits for before its first results."""

# doctor
FINDINGS, CONTACT_SHEET, DOCTOR = "findings.tsv", "contact_sheet.png", "doctor.json"

# align
STACK_TRANSFORM = "from-stack_to-mri_mode-image_xfm.txt"
"""The 3D similarity."""
PLANE_GRID, INITIAL_AFFINES = "plane_grid.json", "sections_initial.tsv"
QUALITY, OVERVIEW = "quality.json", "overview.png"
CANDIDATES, POSITIONS = "candidates.png", "positions.tsv"
"""What is drawn where the pose is not sure, and proposed where positions are an order."""

# resample
MRI, MRI_MASK = "_mri.nii.gz", "_mrimask.nii.gz"

# align-sections
LINEAR, LINEAR_MASK = "_linear.nii.gz", "_linearmask.nii.gz"

# train-registrar, train
WEIGHTS, TRAINING = "weights.safetensors", "weights.json"
LOSSES, LOSS_PLOT = "loss.tsv", "loss.png"

# infer
SECTION_TO_STACK = "_from-section_to-stack_mode-image_xfm.h5"
"""Resamples the section onto the stack's plane: maps points plane -> section."""
STACK_TO_SECTION = "_from-stack_to-section_mode-image_xfm.h5"
"""Its inverse: maps points section -> plane."""
REGISTERED, SYNTHESISED = "_registered.nii.gz", "_synthesised.nii.gz"
VELOCITY = "_velocity.nii.gz"

# trust
TRUST = "trust"
"""Folder of a method's expected errors, in its own; their table is a `TABLE`."""
ERROR = "_error.nii.gz"
"""The expected error at each place of a section's plane, mm, 0 outside tissue."""

# cohere
NEXT, CHANGE = "_next.nii.gz", "_change.nii.gz"
"""How a section differs from the next, and what is added to its velocity."""
ALONG, CHANGES = "along", "changes.tsv"
"""Folder, in that of the method, and the table of corrections."""

# registered
FULL_TIFF, FULL_ZARR = "_registered.ome.tif", "_registered.ome.zarr/zarr.json"
"""Of an OME-Zarr, which is a folder, the file that says what it is stands for all."""

SECTION_ENDINGS = (
    *(IMAGE, MASK, MRI, MRI_MASK, LINEAR, LINEAR_MASK),
    *(SECTION_TO_STACK, STACK_TO_SECTION, REGISTERED, SYNTHESISED, VELOCITY),
    *(FULL_TIFF, FULL_ZARR, ERROR, NEXT, CHANGE),
)
"""Endings of all files of a section."""

# evaluate, compare
SUMMARY, EVALUATION, TESTS = "summary.tsv", "evaluation.json", "tests.tsv"

# demo, simulate
MRI_LABELS_VOLUME = "mri_labels.nii.gz"
LANDMARKS, TRUTH, SIMULATION = "landmarks.tsv", "truth.json", "simulate.json"


def section_file(stage_dir: Path, section: str, ending: str) -> Path:
    """A section's file in the folder of its stage or method."""
    folder = TRANSFORMS if ending in (SECTION_TO_STACK, STACK_TO_SECTION) else SECTIONS
    return Path(stage_dir) / folder / f"{section}{ending}"


def section_of_name(path: Path, sections: Iterable[str]) -> str | None:
    """The section that a file of the user's is named after, by what stands before a full stop.

    Parameters
    ----------
    sections : ids there are; of several that fit (``a`` and ``a.b``) the longest counts.
    """
    fitting = [section for section in sections if path.name.startswith(f"{section}.")]
    return max(fitting, key=len, default=None)


def stain_entity(group: str) -> str:
    """What the names of a stain group's volumes have after their space; nothing of no group."""
    return f"_stain-{group}" if group else ""


def volume_file(folder: Path, brain: str, space: str, kind: str, group: str = "") -> Path:
    """A reassembled volume.

    Parameters
    ----------
    folder : `VOLUME` of a method.
    space : ``mri``, or ``stack`` for a prealigned brain.
    kind : ``histology``, ``coverage`` or ``labels``.
    group : of stains, whose sections it is made of.
    """
    return Path(folder) / f"{brain}_space-{space}{stain_entity(group)}_{kind}.nii.gz"


def volume_groups(
    folder: Path, brain: str, space: str, end: str = "_histology.nii.gz"
) -> list[str]:
    """Stain groups that have a volume, sorted; '' for that of sections of none.

    Parameters
    ----------
    folder, brain, space : as of `volume_file`.
    end : of the name of the file.
    """
    start = f"{brain}_space-{space}"
    found = [path.name[len(start) : -len(end)] for path in Path(folder).glob(f"{start}*{end}")]
    groups = [entity.removeprefix("_stain-") for entity in found]
    return sorted(g for g, entity in zip(groups, found, strict=True) if entity == stain_entity(g))


COLOUR_ENDINGS = {"nifti": ".nii.gz", "ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr/zarr.json"}
"""Format -> ending of a volume with the sections' own colours; of OME-Zarr as of `FULL_ZARR`."""


def colour_file(folder: Path, brain: str, space: str, kind: str, group: str = "") -> Path:
    """The volume with the sections' own colours; parameters as of `volume_file`.

    Parameters
    ----------
    kind : of `COLOUR_ENDINGS`.
    """
    return Path(folder) / f"{brain}_space-{space}{stain_entity(group)}_colour{COLOUR_ENDINGS[kind]}"


def colour_facts(folder: Path, brain: str, space: str, group: str = "") -> Path:
    """The JSON that states where it came from; parameters as of `volume_file`."""
    return Path(folder) / f"{brain}_space-{space}{stain_entity(group)}_colour.json"


def volume_facts(folder: Path, brain: str, space: str, group: str = "") -> Path:
    """The JSON that states where the volumes came from; parameters as of `volume_file`."""
    return Path(folder) / f"{brain}_space-{space}{stain_entity(group)}_histology.json"
