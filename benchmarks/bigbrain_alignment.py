"""Alignment error of a brain whose true section positions are known.

    python benchmarks/bigbrain_alignment.py RESULTS_OF_THE_BRAIN TRUTH_JSON [--method linear]

The error is the mean 3D distance, over tissue pixels of all sections, between a pixel's true world
position, ``world_from_stack · (0.4 · section_from_plane_px⁻¹ (column, row), position_mm)``, and the
found one: file pixel → section affine → stack → MRI world. Only published files are read: the
table of ``prepare`` with its tissue masks, the similarity of ``align``, and the affines of
``align_sections`` (or, with ``--method``, that method's section-to-plane transforms, which are for
``linear`` the same affines).

It is also split along the true stack's axis (out of plane: no section-wise method can mend it) and
across it (in plane), and the mean signed part of each is given: a bias that all sections share is
told from their scatter.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from sbr_core.artifacts.names import MASK, STACK_TO_SECTION, STACK_TRANSFORM, section_file
from sbr_core.artifacts.rows import Affine, Prepared, read_rows
from sbr_core.geometry import apply, scaling
from sbr_core.io.transforms import (
    read_section_transform,
    read_stack_from_world,
)
from sbr_core.io.volumes import read_plane


def section_errors(results: Path, truth: dict, method: str | None) -> dict[str, np.ndarray]:
    """Per section (n, 3): found minus true world position of its tissue pixels, mm."""
    world_from_stack = np.linalg.inv(read_stack_from_world(results / "align" / STACK_TRANSFORM))
    affines = {r.section: r for r in read_rows(results / "align_sections" / "sections.tsv", Affine)}
    true_world_from_stack = np.array(truth["world_from_stack"])
    errors = {}
    for row in read_rows(results / "prepare" / "sections.tsv", Prepared):
        name = row.section
        if name not in affines:
            continue
        section_from_working = row.section_mm_from_working_mm
        mask = read_plane(row.file(MASK))[0] > 0
        working_mm = np.argwhere(mask)[:, ::-1] * row.working_pixel_mm
        if method is None:
            plane_mm = apply(np.linalg.inv(affines[name].working_mm_from_plane_mm), working_mm)
        else:
            # points section -> plane are what resamples the stack's plane onto the section
            inverse = section_file(results / method, name, STACK_TO_SECTION)
            plane_mm = read_section_transform(inverse).map(apply(section_from_working, working_mm))
        found = _world(world_from_stack, plane_mm, row.position_mm)
        file_px = apply(scaling(1 / row.pixel_size_mm) @ section_from_working, working_mm)
        section_from_plane_px = np.eye(3)
        section_from_plane_px[:2] = truth["section_from_plane_px"][name]
        true_plane_mm = truth["pixel_mm"] * apply(np.linalg.inv(section_from_plane_px), file_px)
        # where the manifest is known to be wrong about the place, the truth says so
        true_position_mm = truth.get("position_mm", {}).get(name, row.position_mm)
        errors[name] = found - _world(true_world_from_stack, true_plane_mm, true_position_mm)
    return errors


def _world(world_from_stack: np.ndarray, plane_mm: np.ndarray, position_mm: float) -> np.ndarray:
    z = np.full((len(plane_mm), 1), float(position_mm))
    return apply(world_from_stack, np.concatenate([plane_mm, z], axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results/{brain}")
    parser.add_argument("truth", type=Path, help="truth.json")
    parser.add_argument("--method", help="use this method's transforms, not the affines")
    arguments = parser.parse_args()
    truth = json.loads(arguments.truth.read_text(encoding="utf-8"))
    tell(section_errors(arguments.results, truth, arguments.method), truth)


def tell(errors: dict[str, np.ndarray], truth: dict) -> None:
    """Print what `section_errors` found."""
    # the true stack's own axes, in the world
    axes = np.array(truth["world_from_stack"])[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    every = np.concatenate(list(errors.values()))
    distance = np.linalg.norm(every, axis=1)
    along = every @ axes
    in_plane = np.linalg.norm(along[:, :2], axis=1)
    print(f"sections {len(errors)}, tissue pixels {len(every)}")
    print(
        f"alignment error, mm: mean {distance.mean():.3f}, median {np.median(distance):.3f},"
        f" 95 % {np.quantile(distance, 0.95):.3f}, largest {distance.max():.3f}"
    )
    print(
        f"out of plane, mm: mean {np.abs(along[:, 2]).mean():.3f}, bias {along[:, 2].mean():+.3f};"
        f" in plane: mean {in_plane.mean():.3f}, bias {along[:, 0].mean():+.3f}"
        f" {along[:, 1].mean():+.3f}"
    )
    unbiased = np.linalg.norm(every - every.mean(axis=0), axis=1).mean()
    print(f"mean error once the one shift common to all sections is taken out: {unbiased:.3f} mm")
    per_section = {name: np.linalg.norm(e, axis=1).mean() for name, e in errors.items()}
    worst = sorted(per_section, key=per_section.get, reverse=True)[:5]
    print("worst sections: " + ", ".join(f"{name} {per_section[name]:.2f}" for name in worst))


if __name__ == "__main__":
    main()
