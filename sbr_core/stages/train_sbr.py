"""`sbr train-sbr`: sections, their MRI planes and the frozen registrar in, weights of G out."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sbr_core import plotting
from sbr_core.config import SbrOptions
from sbr_core.errors import TrainingError, WeightsError
from sbr_core.io.manifests import write_tsv
from sbr_core.io.provenance import atomic_path, write_provenance
from sbr_core.io.receipts import read_table
from sbr_core.io.weights import save_weights
from sbr_core.nn.generator import Generator
from sbr_core.nn.projection import Projection
from sbr_core.stages import REVISION
from sbr_core.stages.networks import (
    load_registrar,
    read_planes,
    stacked,
    weights_header,
)
from sbr_core.training.loop import checkpoint_key, fingerprint, open_checkpoints, pick_device, train
from sbr_core.training.sbr import SbrTask

STAGE = "train_sbr"


def run(
    options: SbrOptions,
    *,
    method: str,
    planes: Path,
    sections: Path,
    registrar: Path,
    out_dir: Path,
    checkpoint_root: Path,
    fresh: bool = False,
) -> None:
    """Train the generator through the frozen registrar.

    Parameters
    ----------
    method : name of the method, whose folder `out_dir` is.
    planes, sections : tables written by `resample` and `align-sections`; sections that one of
        them does not have are left out.
    registrar : weights written by `train-registrar`.
    out_dir, checkpoint_root, fresh : as in `train_registrar`.

    Raises
    ------
    TrainingError
        Fewer than two sections to train on, a loss that runs away, or a second trainer.
    WeightsError
        The registrar's file does not hold a registrar, or one for another pixel size.
    """
    network, registrar_header = load_registrar(registrar)
    plane_rows = read_table(planes, verify=("_mri.nii.gz", "_mrimask.nii.gz"))
    section_rows = {
        row["section"]: row
        for row in read_table(sections, verify=("_linear.nii.gz", "_linearmask.nii.gz"))
    }
    spacings_mm = {float(row["spacing_mm"]) for row in plane_rows}
    expected_mm = registrar_header["preprocessing"]["working_pixel_mm"]
    if any(abs(s - expected_mm) > 1e-6 * expected_mm for s in spacings_mm):
        raise WeightsError(
            f"{registrar}: was trained at {expected_mm} mm, but {planes} has planes at"
            f" {sorted(spacings_mm)} mm"
        )

    both = [row for row in plane_rows if row["section"] in section_rows]
    targets, target_masks, kept, skipped = read_planes(
        planes, both, "_mri.nii.gz", "_mrimask.nii.gz", options.intensity
    )
    partners = [section_rows[both[i]["section"]] for i in kept]
    sources, source_masks, usable, more = read_planes(
        sections, partners, "_linear.nii.gz", "_linearmask.nii.gz", options.intensity
    )
    for line in skipped + more:
        print(f"{STAGE}: {line}", file=sys.stderr)
    if len(usable) < 2:
        raise TrainingError(
            f"{sections}: {len(usable)} usable sections with an MRI plane, expected at least 2"
        )
    targets = [targets[i] for i in usable]
    target_masks = [target_masks[i] for i in usable]

    device = pick_device(options.device)
    torch.manual_seed(options.seed)
    architecture = {
        "channels": options.generator_channels,
        "residual_blocks": options.residual_blocks,
    }
    generator = Generator(**architecture).to(device)
    projection = Projection(generator.layer_channels, options.projection_channels).to(device)
    # sections and planes padded together, so that they stay on one grid
    tensors = stacked([*sources, *source_masks, *targets, *target_masks]).chunk(4)
    data = fingerprint(*tensors, *network.state_dict().values())
    key = checkpoint_key(
        f"{STAGE}-{method}", REVISION[STAGE], options.model_dump(mode="json"), data
    )
    print(
        f"{STAGE}: {len(usable)} sections of {tuple(tensors[0].shape[-2:])} px on {device}",
        file=sys.stderr,
    )

    with open_checkpoints(checkpoint_root, key, fresh=fresh) as folder:
        task = SbrTask(
            generator, projection, network.to(device), *(t.to(device) for t in tensors), options
        )
        history = train(task, options, folder, device)
        out_dir = Path(out_dir)
        write_tsv(out_dir / "loss.tsv", history, ("step", "loss"))
        with atomic_path(out_dir / "loss.png") as temporary:
            plotting.loss_curve(history, temporary)
        stains = sorted({str(row.get("stain", "")) for row in partners} - {""})
        header = weights_header(
            "generator",
            architecture,
            options,
            working_pixel_mm=expected_mm,
            stain=",".join(stains),
            fingerprint=data,
            revision=REVISION[STAGE],
            synthesis_rim_px=options.synthesis_rim_px,
        )
        # the projection is not needed to synthesise, but to go on training
        weights = {
            f"{name}.{key}": tensor
            for name, module in task.modules.items()
            for key, tensor in module.state_dict().items()
        }
        save_weights(out_dir / "weights.safetensors", weights, header)
        write_provenance(
            out_dir / "weights.json",
            stage=STAGE,
            options=options.model_dump(mode="json"),
            inputs={"planes": planes, "sections": sections, "registrar": registrar},
            sections=[partners[i]["section"] for i in usable],
            method=method,
            device=str(device),
        )
        folder.clear()
