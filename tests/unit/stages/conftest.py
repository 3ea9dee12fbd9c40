"""A small analytic brain, written as the stages before `infer` would leave it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sbr_core import geometry
from sbr_core.artifacts.names import LINEAR, LINEAR_MASK, MRI, MRI_MASK, section_file
from sbr_core.artifacts.networks import weights_header
from sbr_core.artifacts.rows import Affine, Plane, Prepared, write_rows
from sbr_core.config import RegistrarOptions, SbrOptions
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import sha256_file
from sbr_core.io.images import write_png
from sbr_core.io.transforms import write_stack_from_world
from sbr_core.io.volumes import Volume, write_plane, write_volume
from sbr_core.io.weights import save_weights
from sbr_core.nn.generator import Generator
from sbr_core.nn.registrar import UNetRegistrar

# centre (RAS mm), width (mm) and height of the blobs the brain is made of; no symmetry at all
_BLOBS = (
    ((0.0, 0.0, 0.0), 7.0, 0.8),
    ((7.0, 2.0, -3.0), 3.5, 0.6),
    ((-6.0, 5.0, 4.0), 3.0, 0.5),
    ((2.0, -8.0, 5.0), 3.0, -0.5),
)


def density(world_mm: np.ndarray) -> np.ndarray:
    """Analytic brain, (..., 3) RAS mm -> (...) in [0, 1], smooth, 0 far away."""
    value = np.zeros(world_mm.shape[:-1])
    for centre, width, height in _BLOBS:
        distance2 = np.sum((world_mm - np.array(centre)) ** 2, axis=-1)
        value += height * np.exp(-distance2 / (2 * width**2))
    return np.clip(value, 0, 1)


def labels_of(value: np.ndarray) -> np.ndarray:
    """Two classes, as the demo codes them: 2 inside 3."""
    return np.where(value > 0.5, 2, np.where(value > 0.2, 3, 0)).astype(np.uint8)


@dataclass
class FakeBrain:
    """Where the files lie, and the truth they were made with."""

    results: Path
    stack_from_world: np.ndarray
    grid: PlaneGrid
    positions_mm: dict[str, float]
    section_mm_from_plane_mm: dict[str, np.ndarray]
    pixel_size_mm: float
    mri: Volume

    density = staticmethod(density)
    labels_of = staticmethod(labels_of)

    def table(self, stage: str) -> Path:
        return self.results / stage / "sections.tsv"

    def plane_density(self, plane_mm: np.ndarray, position_mm: float) -> np.ndarray:
        """The brain at points (..., 2) of a plane."""
        stack = np.concatenate([plane_mm, np.full((*plane_mm.shape[:-1], 1), position_mm)], axis=-1)
        return density(geometry.apply(np.linalg.inv(self.stack_from_world), stack))


def oblique_left_handed(scale: float) -> np.ndarray:
    """stack_from_world, 4x4: a turn, a reflection and a scale; world 0 at (20, 17, 12) mm."""
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])
    turn = turn @ np.array([[1.0, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    # LIA: columns to the left, rows down, positions to anterior: determinant -1
    matrix[:3, :3] = scale * geometry.orientation_matrix("LIA").T @ turn
    matrix[:3, 3] = 20.0, 17.0, 12.0
    return matrix


def make_brain(
    results: Path, *, missing: tuple[int, ...] = (), n_sections: int = 13, spacing_mm: float = 1.0
) -> FakeBrain:
    """Write prepare, align, resample and align_sections of a brain of 2 mm thick sections."""
    rng = np.random.default_rng(3)
    grid = PlaneGrid((36, 42), 1.0).at_spacing(spacing_mm)
    stack_from_world = oblique_left_handed(1.1)
    turns = np.array([[0.8, 0.6, 0, 0], [-0.6, 0.8, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1.0]])
    mri_affine = turns @ np.diag([1.3, 1.3, 1.6, 1.0])
    shape = (28, 26, 24)
    mri_affine[:3, 3] = -mri_affine[:3, :3] @ (np.array(shape) / 2 - 0.4)
    voxels = np.stack(np.indices(shape), axis=-1)
    mri = Volume(density(geometry.apply(mri_affine, voxels)).astype(np.float32), mri_affine)
    brain = FakeBrain(results, stack_from_world, grid, {}, {}, 0.4, mri)
    write_volume(results / "prepare" / "mri.nii.gz", mri)
    write_stack_from_world(
        results / "align" / "from-stack_to-mri_mode-image_xfm.txt", stack_from_world
    )
    prepared, planes, affines = [], [], []
    for number in range(n_sections):
        section = f"{number:03d}"
        if number in missing:
            continue
        position_mm = 2.0 * number
        flip, rotate_deg = ("none", "lr", "ud")[number % 3], (0.0, 90.0)[number % 2]
        # a file whose shape differs from section to section, as crops do
        file_shape = (110 + 3 * (number % 4), 124 - 2 * (number % 3))
        file_from_working, _ = geometry.file_px_from_working_px(
            file_shape, brain.pixel_size_mm, grid.spacing_mm, flip, rotate_deg
        )
        section_from_working = geometry.section_mm_from_working_mm(
            file_from_working, brain.pixel_size_mm, grid.spacing_mm
        )
        centre = np.array([20.0, 17.0])
        jitter = np.eye(2) + rng.normal(scale=0.03, size=(2, 2))
        working_from_plane = np.eye(3)
        working_from_plane[:2, :2] = jitter
        middle = geometry.apply(
            np.linalg.inv(section_from_working),
            np.array([file_shape[1], file_shape[0]]) * brain.pixel_size_mm / 2,
        )
        working_from_plane[:2, 2] = middle - jitter @ centre + rng.normal(scale=0.5, size=2)
        section_from_plane = section_from_working @ working_from_plane
        brain.positions_mm[section] = position_mm
        brain.section_mm_from_plane_mm[section] = section_from_plane

        rows_columns = np.indices(file_shape).astype(float)
        section_mm = np.stack(rows_columns[::-1], axis=-1) * brain.pixel_size_mm
        plane_mm = geometry.apply(np.linalg.inv(section_from_plane), section_mm)
        value = brain.plane_density(plane_mm, position_mm)
        image, labels = results / "raw" / f"{section}.png", results / "raw" / f"{section}_l.png"
        write_png(image, np.round((1 - 0.8 * value) * 65535).astype(np.uint16))
        write_png(labels, labels_of(value))
        common = {"section": section, "position_mm": position_mm}
        prepared.append(
            Prepared(
                **common,
                pixel_size_mm=brain.pixel_size_mm,
                working_pixel_mm=grid.spacing_mm,
                file_rows=file_shape[0],
                file_columns=file_shape[1],
                polarity="bright_background",
                background=1.0,
                section_mm_from_working_mm=section_from_working,
                tissue_mm2=float(np.count_nonzero(value > 0.05)) * brain.pixel_size_mm**2,
                image=str(image),
                labels=str(labels),
                fingerprint=f"prepared {section}",
            )
        )
        plane_px = np.stack(np.indices(grid.shape)[::-1], axis=-1)
        on_plane = brain.plane_density(plane_px * grid.spacing_mm, position_mm)
        plane = Plane(**common, grid=grid)
        affine = Affine(**common, working_mm_from_plane_mm=working_from_plane, moved_mm=0.0)
        for rows, stage, endings, picture, row in (
            (planes, "resample", (MRI, MRI_MASK), on_plane, plane),
            (affines, "align_sections", (LINEAR, LINEAR_MASK), 0.8 * on_plane, affine),
        ):
            files = {}
            for ending, array in zip(
                endings,
                (picture.astype(np.float32), (picture > 0.05).astype(np.uint8)),
                strict=True,
            ):
                path = section_file(results / stage, section, ending)
                write_plane(path, array, grid.spacing_mm)
                files[f"sections/{path.name}"] = sha256_file(path)
            rows.append(replace(row, files=files, fingerprint=f"{stage} {section}"))
    for stage, rows in (("prepare", prepared), ("resample", planes), ("align_sections", affines)):
        write_rows(brain.table(stage), rows)
    return brain


def _save_networks(folder, *, spacing_mm=1.0, generator_spacing_mm=None, strength=2.0):
    """Small random networks whose registrar moves things by a few px."""
    torch.manual_seed(0)
    architecture = {"encoder_channels": (4, 8), "decoder_channels": (8, 4), "squaring_steps": 5}
    registrar = UNetRegistrar(**architecture)
    torch.nn.init.normal_(registrar.velocity.weight, std=0.1)
    registrar.velocity.bias.data = torch.tensor([0.5, -0.25]) * strength
    generator = Generator(channels=4, residual_blocks=1)
    paths = folder / "registrar.safetensors", folder / "generator.safetensors"
    for path, kind, options, tensors, made_of, pixel in (
        (paths[0], "registrar", RegistrarOptions(), registrar.state_dict(), architecture, None),
        (
            paths[1],
            "method",
            SbrOptions(),
            {f"generator.{k}": v for k, v in generator.state_dict().items()},
            {"generator": {"channels": 4, "residual_blocks": 1}},
            generator_spacing_mm,
        ),
    ):
        header = weights_header(
            kind,
            made_of,
            options,
            working_pixel_mm=pixel or spacing_mm,
            stain="",
            fingerprint="",
            revision=1,
            synthesis_rim_px=0,
            medium_share=1.0,
            medium_margin_px=2,
            registers="synthesised",
        )
        save_weights(path, tensors, header)
    return {"registrar": paths[0], "weights": paths[1]}


@pytest.fixture(scope="session")
def save_networks():
    """Writes small random networks: `save_networks(folder, spacing_mm=…)` gives their paths."""
    return _save_networks


@pytest.fixture
def fake_brain(tmp_path: Path) -> FakeBrain:
    """An analytic brain with section 5 of 13 missing; yours to write to."""
    return make_brain(tmp_path / "results" / "b", missing=(5,))


@pytest.fixture(scope="session")
def brain_maker():
    """`make_brain`, for brains made otherwise."""
    return make_brain
