"""What `sbr check` says of a real brain into whose inputs one fault each is planted.

    python benchmarks/planted_faults.py DATA WORK [--every 8]

DATA is the folder of bigbrain_anterior, with its ``truth.json``; every so many of its raw sections
are taken. Landmarks are points of their tissue, which the truth takes to the MRI; the brain's mask
is what is above 0 in the MRI, which is stripped. Each fault changes one of these inputs and leaves
the files of DATA as they are. Prints, as Markdown, what is said of each: the lines that are not
fine. The brain without a fault, for which nothing may be said, comes first; exit code 1 if
something is, or if nothing is of a fault.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import heading
from PIL import Image
from scipy import ndimage

from sbr_core.algorithms.plausibility.halves import midline
from sbr_core.algorithms.plausibility.outlines import in_tissue
from sbr_core.artifacts.rows import Looked, read_rows
from sbr_core.cli import main as sbr
from sbr_core.geometry import apply
from sbr_core.io.images import read_section
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.volumes import Volume, read_volume, write_volume

_POINTS = 3
"""Landmarks of a section."""
_VOXEL = 2
"""Every so many voxels of the MRI along each axis are kept: 1.07 mm, which saves time."""
_SHELLS_MM = {"fluid": 3.0, "bone": 10.0, "skin": 16.0}
"""Outer radii of the layers of a head around the brain."""


@dataclass
class Inputs:
    """Everything of one brain, as a fault finds it.

    Attributes
    ----------
    rows : of the manifest, cells as text, with absolute paths.
    section_mm, mri_mm : (n, 2) and (n, 3), landmarks; `of` is the section of each.
    mri, mask, labels : the volume, and what is given of it.
    letters : the orientation.
    looked_anew : the sections are not those that were looked at already.
    """

    rows: list[dict[str, str]]
    of: list[str]
    section_mm: np.ndarray
    mri_mm: np.ndarray
    mri: Volume
    mask: np.ndarray | None = None
    letters: str = "LIA"
    labels: np.ndarray | None = None
    looked_anew: bool = False


def read_inputs(data: Path, every: int, work: Path) -> Inputs:
    """The brain as it is, and landmarks made from its truth."""
    rows = read_tsv(data / "sections.tsv")[1][::every]
    for row in rows:
        row["image"] = str((data / row["image"]).resolve())
    volume = read_volume(data / "mri.nii.gz")
    affine = volume.world_from_voxel @ np.diag([_VOXEL] * 3 + [1])
    volume = Volume(np.ascontiguousarray(volume.data[::_VOXEL, ::_VOXEL, ::_VOXEL]), affine)
    inputs = Inputs(rows, [], np.zeros((0, 2)), np.zeros((0, 3)), volume)
    looked = look(inputs, work / "right")
    truth = json.loads((data / "truth.json").read_text())
    world_from_stack = np.array(truth["world_from_stack"])
    rng, of, section_mm, mri_mm = np.random.default_rng(0), [], [], []
    for row in looked:
        share = rng.uniform(0.1, 0.9, (400, 2))
        share = share[in_tissue(row.cells, share)][:_POINTS]
        px = share * [row.file_columns, row.file_rows] - 0.5
        section_from_plane = np.array([*truth["section_from_plane_px"][row.section][:2], [0, 0, 1]])
        plane_px = apply(np.linalg.inv(section_from_plane), px)
        stack = np.column_stack([0.4 * plane_px, np.full(len(px), row.position_mm)])
        of += [row.section] * len(px)
        section_mm.append(px * row.pixel_size_mm)
        mri_mm.append(apply(world_from_stack, stack))
    inputs.of, inputs.section_mm = of, np.concatenate(section_mm)
    inputs.mri_mm = np.concatenate(mri_mm)
    return inputs


def look(inputs: Inputs, folder: Path) -> list[Looked]:
    """What `check-sections` sees; kept in `folder`."""
    write_tsv(folder / "sections.tsv", inputs.rows)
    receipt = folder / "chunks" / "1of1.tsv"
    call(
        "check-sections",
        "--rows",
        folder / "sections.tsv",
        "--out-dir",
        folder,
        "--receipt",
        receipt,
    )
    return read_rows(receipt, Looked)


def call(*words: object) -> tuple[int, str]:
    """Exit code and log of a command, in this process."""
    log = io.StringIO()
    with redirect_stderr(log), redirect_stdout(io.StringIO()):
        code = sbr([str(word) for word in words])
    return code, log.getvalue()


def check(inputs: Inputs, folder: Path, seen: Path) -> tuple[int, list[str]]:
    """Exit code of `sbr check`, and its lines that are not fine, joined again."""
    write_tsv(folder / "sections.tsv", inputs.rows)
    write_volume(folder / "mri.nii.gz", inputs.mri)
    marks = zip(inputs.of, inputs.section_mm, inputs.mri_mm, strict=True)
    columns = ("x_section_mm", "y_section_mm", "mri_x_mm", "mri_y_mm", "mri_z_mm")
    write_tsv(
        folder / "landmarks.tsv",
        [
            {"section": s, **dict(zip(columns, map(float, [*a, *b]), strict=True))}
            for s, a, b in marks
        ],
    )
    if inputs.looked_anew:
        look(inputs, folder)
    words = ["check", folder / "sections.tsv", "--mri", folder / "mri.nii.gz"]
    words += ["--orientation", inputs.letters, "--landmarks", folder / "landmarks.tsv"]
    for name in ("mask", "labels"):
        if (array := getattr(inputs, name)) is not None:
            array = array.astype(np.uint8) if array.dtype == bool else array
            write_volume(folder / f"{name}.nii.gz", Volume(array, inputs.mri.world_from_voxel))
            words += [f"--mri-{name}", folder / f"{name}.nii.gz"]
    receipt = (folder if inputs.looked_anew else seen) / "chunks" / "1of1.tsv"
    code, log = call(*words, "--receipts", receipt)
    said: list[str] = []
    for line in log.splitlines():
        if line.startswith(("check: WARNING", "sbr check:")):
            break
        if line[:1] == " " and said:
            said[-1] += " " + line.strip()
        else:
            said.append(" ".join(line.split()))
    return code, [line for line in said if " doubtful " in line or " refused " in line]


# --------------------------------------------------------------------------------------------
# Faults
# --------------------------------------------------------------------------------------------


def landmarks_in(change: Callable[[np.ndarray], np.ndarray], name: str) -> Callable[[Inputs], None]:
    """A fault of all landmarks: `section_mm` or `mri_mm` changed."""

    def plant(inputs: Inputs) -> None:
        setattr(inputs, name, change(getattr(inputs, name)))

    return plant


def as_voxels(inputs: Inputs) -> None:
    inputs.mri_mm = apply(np.linalg.inv(inputs.mri.world_from_voxel), inputs.mri_mm)


def pixel_size(factor: float, n: int | None = None) -> Callable[[Inputs], None]:
    """`pixel_size_mm` of all sections, or of the first `n` after five, times `factor`."""

    def plant(inputs: Inputs) -> None:
        for row in inputs.rows[5 : 5 + n] if n else inputs.rows:
            row["pixel_size_mm"] = f"{float(row['pixel_size_mm']) * factor:g}"
        inputs.looked_anew = True

    return plant


def positions(factor: float) -> Callable[[Inputs], None]:
    def plant(inputs: Inputs) -> None:
        for row in inputs.rows:
            row["position_mm"] = f"{float(row['position_mm']) * factor:g}"
        inputs.looked_anew = True

    return plant


def hemisphere(inputs: Inputs, folder: Path) -> None:
    """Every section without what lies left of the MRI's midline, and so the landmarks."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = np.where(brain(inputs), inputs.mri.data, 0).astype(np.float32)
    *normal, offset = midline(shown, inputs.mri.world_from_voxel)
    # world from section mm: one linear part for all sections, and each one's own place
    linear, *_ = np.linalg.lstsq(
        centred(inputs, inputs.section_mm), centred(inputs, inputs.mri_mm), rcond=None
    )
    for row in inputs.rows:
        of = [i for i, section in enumerate(inputs.of) if section == row["section"]]
        image = read_section(Path(row["image"]))
        columns, lines = np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[0]))
        points = np.stack([columns, lines], -1) * float(row["pixel_size_mm"])
        world = (points - inputs.section_mm[of].mean(axis=0)) @ linear
        world = world + inputs.mri_mm[of].mean(axis=0)
        glass = np.where(world @ normal + offset < 0, np.quantile(image, 0.98), image)
        row["image"] = str(folder / f"{row['section']}.png")
        Image.fromarray(np.round(255 * glass).astype(np.uint8)).save(row["image"])
    kept = inputs.mri_mm @ normal + offset > 0
    inputs.of = [section for section, on in zip(inputs.of, kept, strict=True) if on]
    inputs.section_mm, inputs.mri_mm = inputs.section_mm[kept], inputs.mri_mm[kept]
    inputs.looked_anew = True


def centred(inputs: Inputs, points: np.ndarray) -> np.ndarray:
    """Points less the mean of their section's."""
    out = points.copy()
    for section in set(inputs.of):
        of = [i for i, other in enumerate(inputs.of) if other == section]
        out[of] -= points[of].mean(axis=0)
    return out


def brain(inputs: Inputs) -> np.ndarray:
    return ndimage.binary_fill_holes(ndimage.binary_opening(inputs.mri.data > 12))


def head(inputs: Inputs) -> None:
    """Fluid, bone and skin around the brain, and noise."""
    spacing_mm = inputs.mri.spacing_mm
    pad = int(np.ceil(20 / spacing_mm.min()))
    mask, data = np.pad(brain(inputs), pad), np.pad(inputs.mri.data.astype(np.float32), pad)
    out_mm = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    top = float(np.quantile(data[mask], 0.95))
    inner = 0.0
    for name, value in (("fluid", 0.25), ("bone", 0.12), ("skin", 0.9)):
        data[(out_mm > inner) & (out_mm <= _SHELLS_MM[name])] = value * top
        inner = _SHELLS_MM[name]
    data += np.abs(np.random.default_rng(0).normal(0, 0.02 * top, data.shape))
    affine = inputs.mri.world_from_voxel.copy()
    affine[:3, 3] = apply(affine, np.full(3, -pad))
    inputs.mri = Volume(data.astype(np.float32), affine)


def z_scored(inputs: Inputs) -> None:
    data = inputs.mri.data.astype(np.float32)
    inside = data[brain(inputs)]
    inputs.mri = Volume((data - inside.mean()) / inside.std(), inputs.mri.world_from_voxel)


def mri_size(factor: float) -> Callable[[Inputs], None]:
    def plant(inputs: Inputs) -> None:
        scale = np.diag([factor] * 3 + [1.0])
        inputs.mri = Volume(inputs.mri.data, scale @ inputs.mri.world_from_voxel)
        inputs.mri_mm = inputs.mri_mm * factor

    return plant


def mri_mask(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Inputs], None]:
    def plant(inputs: Inputs) -> None:
        inputs.mask = change(brain(inputs))

    return plant


def probability(mask: np.ndarray) -> np.ndarray:
    """As networks give it: smooth, and never quite 0."""
    return np.clip(ndimage.gaussian_filter(mask.astype(np.float32), 4), 1e-4, 1).astype(np.float32)


def section_masks(
    change: Callable[[np.ndarray], np.ndarray], suffix: str
) -> Callable[[Inputs, Path], None]:
    """Masks of all sections, 0 and 255, changed and saved."""

    def plant(inputs: Inputs, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for row in inputs.rows:
            image = read_section(Path(row["image"]))
            mask = ndimage.binary_fill_holes(ndimage.binary_opening(image < 0.85, iterations=2))
            path = folder / f"{row['section']}_mask{suffix}"
            Image.fromarray(change(mask)).save(path)
            row["mask"] = str(path)
        inputs.looked_anew = True

    return plant


def section_labels(suffix: str) -> Callable[[Inputs, Path], None]:
    """Three classes of every section, and of the MRI."""

    def plant(inputs: Inputs, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for row in inputs.rows:
            image = ndimage.gaussian_filter(read_section(Path(row["image"])), 2)
            classes = np.digitize(-image, [-0.85, -0.6, -0.45]).astype(np.uint8)
            path = folder / f"{row['section']}_labels{suffix}"
            Image.fromarray(classes * 60).save(path)
            row["labels"] = str(path)
        grey = inputs.mri.data
        inputs.labels = (np.digitize(grey, [12, 90, 150]) * 60).astype(np.int16)
        inputs.looked_anew = True

    return plant


def other_ids(inputs: Inputs, folder: Path) -> None:
    section_labels(".png")(inputs, folder)
    inputs.labels = np.where(inputs.labels > 0, inputs.labels + 1000, 0).astype(np.int16)


def grey(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


FAULTS: dict[str, Callable[..., None]] = {
    "none": lambda inputs: None,
    "none; masks and labels of sections as PNG": lambda inputs, folder: (
        section_masks(grey, ".png")(inputs, folder),
        section_labels(".png")(inputs, folder),
    ),
    "none; mri_mask": mri_mask(lambda mask: mask),
    "MRI z-scored, no mask": z_scored,
    "landmarks: MRI in LPS": landmarks_in(lambda p: p * [-1, -1, 1], "mri_mm"),
    "landmarks: MRI x mirrored": landmarks_in(lambda p: p * [-1, 1, 1], "mri_mm"),
    "landmarks: MRI in voxels": as_voxels,
    "landmarks: MRI in µm": landmarks_in(lambda p: p * 1000, "mri_mm"),
    "landmarks: sections in pixels": landmarks_in(lambda p: p / 0.4, "section_mm"),
    "landmarks: sections in µm": landmarks_in(lambda p: p * 1000, "section_mm"),
    "landmarks: x and y of sections swapped": landmarks_in(lambda p: p[:, ::-1], "section_mm"),
    "pixel_size_mm in µm": pixel_size(1000),
    "pixel_size_mm a thousandth": pixel_size(1e-3),
    "pixel_size_mm of one section ten times": pixel_size(10, 1),
    "position_mm in µm": positions(1000),
    "position_mm as numbers of sections": positions(2.5),
    "MRI in µm": mri_size(1000),
    "MRI ten times as large": mri_size(10),
    "orientation of the mirror image": lambda inputs: setattr(inputs, "letters", "RIA"),
    "sections of the right hemisphere": hemisphere,
    "a head, not stripped": head,
    "mri_mask inverted": mri_mask(np.logical_not),
    "mri_mask a map of probabilities": mri_mask(probability),
    "masks of sections as JPEG": section_masks(grey, ".jpg"),
    "masks of sections inverted": section_masks(lambda mask: grey(~mask), ".png"),
    "masks of sections upside down": section_masks(lambda mask: grey(mask[::-1]), ".png"),
    "masks of sections as maps of probabilities": section_masks(
        lambda mask: np.round(254 * probability(mask) + 1).astype(np.uint8), ".png"
    ),
    "labels of sections as JPEG": section_labels(".jpg"),
    "labels with other ids than the MRI's": other_ids,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="faults with one of these in it")
    arguments = parser.parse_args()
    right = read_inputs(arguments.data, arguments.every, arguments.work)
    n = len(right.rows)
    print(heading(f"Planted faults, {n} raw sections of bigbrain_anterior"))
    print("\n| fault | exit code | what `sbr check` says, of all that is not fine |\n|---|---|---|")
    failed = []
    for number, (name, plant) in enumerate(FAULTS.items()):
        if arguments.only and not any(text in name for text in arguments.only):
            continue
        inputs = Inputs(
            [dict(row) for row in right.rows],
            list(right.of),
            right.section_mm.copy(),
            right.mri_mm.copy(),
            right.mri,
        )
        folder = arguments.work / f"{number:02d}"
        parameters = plant.__code__.co_argcount
        plant(*(inputs, folder / "files")[:parameters])
        code, said = check(inputs, folder, arguments.work / "right")
        print(f"| {name} | {code} | {'<br>'.join(said) or '–'} |", flush=True)
        is_right = name.startswith(("none", "MRI z-scored"))
        if is_right == bool(said):
            failed.append(name)
    print(f"\nNot as they should be: {', '.join(failed) or 'none'}.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
