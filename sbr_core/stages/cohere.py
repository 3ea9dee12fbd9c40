"""`sbr cohere`: what makes the deformations of neighbouring sections agree.

Each registered section is registered to the next one of its stain group, and its MRI plane to that
one's; where the two velocities differ, one of the sections is off. `algorithms.along_stack` finds
the small corrections that explain the differences of the whole stack best, and `infer` of the
method `coherent` adds them to the velocities of the method that is followed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sbr_core.algorithms import deformation as flow
from sbr_core.algorithms.along_stack import pair_weight, reconcile
from sbr_core.artifacts.coherence import Cohered, Compared
from sbr_core.artifacts.names import (
    CHANGE,
    MRI,
    MRI_MASK,
    NEXT,
    REGISTERED,
    SHIPPED_REGISTRAR,
    section_file,
)
from sbr_core.artifacts.networks import load_registrar
from sbr_core.artifacts.receipts import SectionResult, run_sections
from sbr_core.artifacts.rows import Inferred, Plane, Prepared, fingerprint, read_rows, write_rows
from sbr_core.config import CoherentOptions
from sbr_core.errors import ReceiptError
from sbr_core.functional.intensity import normalise
from sbr_core.functional.masks import dilate
from sbr_core.functional.warp import upsample_velocity
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import sha256_file
from sbr_core.io.volumes import read_plane, write_plane
from sbr_core.nn.registrar import Registrar
from sbr_core.revisions import REVISION
from sbr_core.training.devices import pick_device
from sbr_core.training.refine import Views, refine

logger = logging.getLogger(__name__)

_MULTIPLE = 16
"""Sides of what is registered: three halvings of a half grid."""
_QUANTILES = 0.01, 0.99
"""Of the intensities that become 0 and 1; both images of a pair are of one kind."""
_BELIEF_SMOOTHINGS = 4.0
"""How far around a point the movement of anatomy counts against a pair, in smoothings."""


@dataclass(frozen=True, eq=False)
class _Section:
    """A registered section and its MRI plane."""

    row: Inferred
    plane: Plane

    @property
    def digests(self) -> list[str]:
        """Of its files that are compared."""
        return [
            row.files[name]
            for row in (self.row, self.plane)
            for name in sorted(row.files)
            if name.endswith((REGISTERED, MRI, MRI_MASK))
        ]


_Pair = tuple[_Section, _Section | None]
"""A section and the next, if it can be compared with it."""


def run(
    options: CoherentOptions,
    *,
    sections: Path,
    prepared: Path,
    planes: Path,
    out_dir: Path,
    table: Path,
) -> None:
    """Compare each section with its neighbours and find the corrections that make them agree.

    Parameters
    ----------
    sections : table of the method that is followed.
    prepared : table of prepare.
    planes : table of resample.
    out_dir : folder the corrections go to, in a folder sections.
    table : table to write: each section and its correction.

    Raises
    ------
    ReceiptError
        A section of one table is not in the others.
    """
    stacks = _stacks(sections, prepared, planes)
    pairs = {
        section.row.section: (section, after if _comparable(section, after) else None)
        for stack in stacks
        for section, after in zip(stack, [*stack[1:], None], strict=True)
    }
    registrar, _ = load_registrar(SHIPPED_REGISTRAR)
    device = pick_device(options.device)
    registrar.to(device)

    def digest(pair: _Pair) -> str:
        section, after = pair
        return fingerprint(
            REVISION["coherent"],
            compared=options.model_dump(mode="json", exclude={"of", "device", "hold", "outlier"}),
            section=section.digests,
            next=after.digests if after is not None else [],
        )

    compared = run_sections(
        pairs,
        stage="cohere",
        out_dir=out_dir,
        receipt=out_dir / "compared.tsv",
        fingerprint=digest,
        process=lambda pair: compare(options, pair, registrar, device, out_dir),
        strict=True,
    )
    differing = {row["section"] for row in compared if row["files"]}
    rows = [row for stack in stacks for row in _cohered(options, stack, differing, out_dir)]
    for path in (out_dir / "sections").glob(f"*{CHANGE}"):
        if path.name.removesuffix(CHANGE) not in pairs:
            path.unlink()
    rows.sort(key=lambda row: row.position_mm)
    write_rows(table, rows)
    mean_mm = sum(row.change_mean_mm for row in rows) / max(len(rows), 1)
    logger.info(f"cohere: {len(rows)} sections, corrected by {mean_mm:.3f} mm in the mean")


def _stacks(sections: Path, prepared: Path, planes: Path) -> list[list[_Section]]:
    """The sections that the method could do, of each stain group in order of position."""
    groups = {r.section: r.stain_group for r in read_rows(prepared, Prepared, verify=False)}
    plane_of = {row.section: row for row in read_rows(planes, Plane, verify=False)}
    rows = read_rows(sections, Inferred, verify=False)
    for row in rows:
        for table, known in ((prepared, groups), (planes, plane_of)):
            if row.section not in known:
                raise ReceiptError(f"{table}: section {row.section!r} is not in it")
    rows.sort(key=lambda row: (groups[row.section], row.position_mm))
    return [
        [_Section(row, plane_of[row.section]) for row in of_group]
        for _, of_group in groupby(rows, key=lambda row: groups[row.section])
    ]


def _comparable(section: _Section, after: _Section | None) -> bool:
    """Whether the planes of two sections have one pixel size, as all but prealigned ones have."""
    return after is not None and section.row.grid.spacing_mm == after.row.grid.spacing_mm


def compare(
    options: CoherentOptions,
    pair: _Pair,
    registrar: Registrar,
    device: torch.device,
    out_dir: Path,
) -> SectionResult:
    """Register a section and its plane to the next ones, and write how they differ.

    The file has three components on a grid `smoothing_px` times as coarse: d (x, y) in mm, and the
    weight of the pair.
    """
    section, after = pair
    row = Compared(section=section.row.section, position_mm=section.row.position_mm)
    if after is None:
        return SectionResult(row, [])
    images = [image for each in (section, after) if (image := _image(each)) is not None]
    if len(images) < 2:
        return SectionResult(row, [])
    masks = [read_plane(each.plane.intact(MRI_MASK))[0] > 0 for each in (section, after)]
    mri = [
        normalise(_read(each.plane.intact(MRI)), inside, *_QUANTILES)
        for each, inside in zip((section, after), masks, strict=True)
    ]
    grid, mask = section.row.grid, masks[0]
    of_both = [
        between(registrar, fixed, moving, mask, options, device) for fixed, moving in (images, mri)
    ]
    smooth_px = float(options.smoothing_px)
    difference = gaussian_filter(of_both[0] - of_both[1], (smooth_px, smooth_px, 0))
    weight = pair_weight(of_both[1], difference, _BELIEF_SMOOTHINGS * smooth_px)
    coarse = coarser(grid, options)
    step = options.smoothing_px
    sampled = flow.resample_velocity(difference, grid, coarse) * coarse.spacing_mm
    weight = np.pad(weight, ((0, step), (0, step)), "edge")[::step, ::step]
    stored = np.dstack([sampled, weight[: coarse.shape[0], : coarse.shape[1]]])
    path = section_file(out_dir, row.section, NEXT)
    write_plane(path, stored.astype(np.float32), coarse.spacing_mm)
    apart_mm = float(np.linalg.norm(difference, axis=-1)[mask].mean()) * grid.spacing_mm
    return SectionResult(
        Compared(
            section=row.section,
            position_mm=row.position_mm,
            next_section=after.row.section,
            apart_mm=round(apart_mm, 4),
        ),
        [path],
    )


def coarser(grid: PlaneGrid, options: CoherentOptions) -> PlaneGrid:
    """The grid that smoothed differences, and corrections, are kept on."""
    return grid.at_spacing(grid.spacing_mm * options.smoothing_px)


def _read(path: Path) -> np.ndarray:
    return read_plane(path)[0].astype(np.float32)


def _image(section: _Section) -> np.ndarray | None:
    """A registered section in [0, 1]; None where nothing of it lies on its plane."""
    image = _read(section.row.intact(REGISTERED))
    return normalise(image, image > 0, *_QUANTILES) if (image > 0).any() else None


def between(
    registrar: Registrar,
    fixed: np.ndarray,
    moving: np.ndarray,
    mask: np.ndarray,
    options: CoherentOptions,
    device: torch.device,
) -> np.ndarray:
    """The velocity that brings one image to another of its kind, by LNCC and MIND-SSC.

    Parameters
    ----------
    fixed, moving : (rows, columns) in [0, 1]; pixel (0, 0) of both is one point of the plane.
    mask : (rows, columns) of `fixed`, where they are compared.

    Returns
    -------
    (rows, columns, 2) of `fixed`, px: points of `fixed` to where they are in `moving`.
    """
    rows, columns = (max(sides) for sides in zip(fixed.shape, moving.shape, strict=True))
    shape = tuple(-(-n // _MULTIPLE) * _MULTIPLE for n in (rows, columns))

    def batch(image: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
        below, beside = (n - m for n, m in zip(shape, image.shape, strict=True))
        return F.pad(tensor, (0, beside, 0, below)).to(device)

    target, section, tissue = batch(fixed), batch(moving), batch(mask)
    wide = dilate(tissue, options.refine_rim_px)
    # of one kind already, so the moving image is its own synthesis
    views = Views(target, section, section, tissue, wide)
    start = torch.zeros(1, 2, shape[0] // 2, shape[1] // 2, device=device)
    velocity_half_px = refine(registrar, start, views, options)
    velocity_px = upsample_velocity(velocity_half_px, shape)[0].cpu().double().numpy()
    return np.moveaxis(velocity_px, 0, -1)[: fixed.shape[0], : fixed.shape[1]]


def _cohered(
    options: CoherentOptions,
    stack: Sequence[_Section],
    differing: Collection[str],
    out_dir: Path,
) -> list[Cohered]:
    """Write the corrections of a stain group's sections.

    Parameters
    ----------
    differing : sections for which it is written how they differ from the next.
    """
    grids = [coarser(section.row.grid, options) for section in stack]
    rows, columns = (max(grid.shape[axis] for grid in grids) for axis in (0, 1))
    differences = np.zeros((len(stack) - 1, rows, columns, 2), np.float32)
    weights = np.zeros((len(stack) - 1, rows, columns), np.float32)
    for i, (section, _) in enumerate(pairwise(stack)):
        if section.row.section in differing:
            stored = read_plane(section_file(out_dir, section.row.section, NEXT))[0]
            part = tuple(slice(n) for n in stored.shape[:2])
            differences[i][part], weights[i][part] = stored[..., :2], stored[..., 2]
    changes = reconcile(differences, weights, hold=options.hold, outlier=options.outlier)
    cohered = []
    for section, grid, change in zip(stack, grids, changes, strict=True):
        own = change[: grid.shape[0], : grid.shape[1]]
        path = section_file(out_dir, section.row.section, CHANGE)
        write_plane(path, own, grid.spacing_mm)
        cohered.append(
            Cohered(
                section=section.row.section,
                position_mm=section.row.position_mm,
                grid=grid,
                change_mean_mm=round(float(np.linalg.norm(own, axis=-1).mean()), 4),
                files={str(path.relative_to(out_dir)): sha256_file(path)},
            )
        )
    return cohered
