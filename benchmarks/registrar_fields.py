"""How well a registrar recovers known smooth fields on the MRI planes of a real brain.

    python benchmarks/registrar_fields.py bigbrain|allen DATA [--weights FILE] [--every N]
        [--pixel-mm MM] [--mean-px 3.4] [--train MINUTES | --finetune MINUTES] [--set key=value …]

The moving image is an MRI plane T, the fixed one T∘f with a known field f: Gaussian nodes on a
9x9 grid, bicubic between them, all scaled by one factor so that f is `--mean-px` long on average
in tissue. The error is the mean of |found - f| over the fixed image's tissue. Without `--weights`
it is the registrar that ships; `--train` trains one on these planes first, `--finetune` goes on
from the shipped one (or `--weights`), with the options of `train_registrar` as `--set` changes
them.

bigbrain: planes of the 3D MRI at the sections' true positions, on the truth's own grid of
303x348 px at 0.4 mm. allen: the MRI planes of the manifest. `--every` thins what is measured, not
what is trained on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from machine import heading
from torch import Tensor

from sbr_core.artifacts.names import MRI, MRI_MASK, SHIPPED_REGISTRAR, STACK_TRANSFORM
from sbr_core.artifacts.networks import load_registrar
from sbr_core.artifacts.rows import Plane, read_rows
from sbr_core.artifacts.training_data import read_images, stacked
from sbr_core.config import (
    UNLIMITED_STEPS,
    AugmentOptions,
    IntensityOptions,
    PrepareOptions,
    RegistrarOptions,
    ResampleOptions,
    parse_options,
)
from sbr_core.functional.warp import jacobian_determinant, warp
from sbr_core.io.files import write_json
from sbr_core.io.manifests import read_manifest
from sbr_core.io.transforms import write_stack_from_world
from sbr_core.nn.registrar import Registrar, build_registrar, registrar_architecture
from sbr_core.stages import prepare_mri, resample
from sbr_core.training.checkpoints import checkpoint_key, fingerprint, open_checkpoints
from sbr_core.training.loop import train
from sbr_core.training.registrar import RegistrarTask

BIGBRAIN_GRID = {"rows": 303, "columns": 348, "spacing_mm": 0.4}
BATCH_SIZE = 8


def mri_planes(
    name: str, data: Path, work: Path, pixel_mm: float, every: int
) -> tuple[Tensor, Tensor, list[float]]:
    """Every so manieth plane and mask (N, 1, H, W) as networks see them; its position in mm."""
    receipt = work / "sections.tsv"
    if name == "allen":
        rows = read_manifest(data / "sections.tsv", prealigned=True)
        where = {"working_pixel_mm": pixel_mm}
    else:
        rows = read_manifest(data / "sections.tsv")
        truth = json.loads((data / "truth.json").read_text(encoding="utf-8"))
        prepare_mri.run(PrepareOptions(), mri=data / "mri.nii.gz", out_dir=work)
        stack_from_world = np.linalg.inv(np.array(truth["world_from_stack"]))
        write_stack_from_world(work / STACK_TRANSFORM, stack_from_world)
        write_json(work / "plane_grid.json", BIGBRAIN_GRID)
        where = {
            "align_dir": work,
            "mri": work / "mri.nii.gz",
            "mri_mask": work / "mri_mask.nii.gz",
        }
    rows = rows[::every]
    resample.run(ResampleOptions(), rows=rows, out_dir=work, receipt=receipt, **where)
    read = read_images(read_rows(receipt, Plane), MRI, MRI_MASK, IntensityOptions())
    return stacked(read.images), stacked(read.masks), [row.position_mm for row in read.rows]


def known_fields(masks: Tensor, mean_px: float, seed: int) -> Tensor:
    """(N, 2, H, W), `mean_px` long on average over the tissue of all planes."""
    rng = torch.Generator().manual_seed(seed)
    n = AugmentOptions().field_grid
    nodes = torch.randn(len(masks), 2, n, n, generator=rng)
    fields = F.interpolate(nodes, size=masks.shape[-2:], mode="bicubic", align_corners=True)
    return fields * (mean_px / in_tissue(fields.norm(dim=1, keepdim=True), masks).mean())


def in_tissue(values: Tensor, masks: Tensor) -> Tensor:
    """(N,) means over each mask."""
    return (values * masks).sum((1, 2, 3)) / masks.sum((1, 2, 3))


@torch.no_grad()
def recovered(
    registrar: Registrar, planes: Tensor, masks: Tensor, fields_px: Tensor
) -> tuple[Tensor, Tensor, int]:
    """Per plane the field's length and the error, px; how many pixels fold, tissue or not."""
    lengths, errors, folds = [], [], 0
    for plane, mask, field in zip(
        *(t.split(BATCH_SIZE) for t in (planes, masks, fields_px)), strict=True
    ):
        fixed, inside = warp(plane, field), (warp(mask, field) >= 0.5).float()
        found = registrar.displacement(registrar(fixed, plane), plane.shape[-2:])
        lengths.append(in_tissue(field.norm(dim=1, keepdim=True), inside))
        errors.append(in_tissue((found - field).norm(dim=1, keepdim=True), inside))
        folds += int((jacobian_determinant(found) <= 0).sum())
    return torch.cat(lengths), torch.cat(errors), folds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", choices=("bigbrain", "allen"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, default=SHIPPED_REGISTRAR)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--train", type=float, metavar="MINUTES")
    how.add_argument("--finetune", type=float, metavar="MINUTES")
    parser.add_argument("--mean-px", type=float, default=3.4)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--pixel-mm", type=float, default=0.25, help="of allen's planes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, help="where --train goes on if interrupted")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings: dict[str, object] = {}
    for setting in arguments.set:
        key, _, value = setting.partition("=")
        section, _, option = key.rpartition(".")
        inner = settings.setdefault(section, {}) if section else settings
        inner[option] = yaml.safe_load(value)

    with tempfile.TemporaryDirectory() as folder:
        minutes = arguments.train or arguments.finetune
        planes, masks, positions_mm = mri_planes(
            arguments.input,
            arguments.data,
            Path(folder),
            arguments.pixel_mm,
            1 if minutes else arguments.every,
        )
        registrar, what = load_registrar(arguments.weights)[0], arguments.weights.stem
        began = time.monotonic()
        if minutes:
            changed = {"minutes": minutes, "steps": UNLIMITED_STEPS}
            if arguments.finetune:
                changed["learning_rate"] = RegistrarOptions().finetune_learning_rate
            options = parse_options(RegistrarOptions, changed | settings, "train_registrar")
            torch.manual_seed(options.seed)
            if arguments.train:
                registrar = build_registrar(**registrar_architecture(options))
            registrar.requires_grad_(True)
            task = RegistrarTask(registrar, planes, masks, positions_mm, options)
            root = arguments.checkpoints or Path(folder)
            data = fingerprint(planes, masks, *registrar.state_dict().values())
            key = checkpoint_key("registrar_fields", 1, options.model_dump(mode="json"), data)
            with open_checkpoints(root, key) as checkpoints:
                steps = len(train(task, options, checkpoints, torch.device("cpu")))
            what = f"{'trained' if arguments.train else f'{what}, finetuned'}: {steps} steps"
        took_min = (time.monotonic() - began) / 60

    if minutes:  # trained on all planes, measured on some
        planes, masks = planes[:: arguments.every], masks[:: arguments.every]
    fields_px = known_fields(masks, arguments.mean_px, arguments.seed)
    before, after, folds = recovered(registrar.eval(), planes, masks, fields_px)
    print(heading(f"Known fields on {arguments.input}"))
    print(
        "| registrar | min of training | planes | size | field px | error px | median | worst"
        " plane | px folded |\n" + "|---" * 9 + "|"
    )
    rows, columns = planes.shape[-2:]
    print(
        f"| {what} | {took_min:.1f} | {len(after)} | {rows}x{columns} | {before.mean():.2f}"
        f" | {after.mean():.3f} | {after.median():.3f} | {after.max():.3f} | {folds} |"
    )


if __name__ == "__main__":
    main()
