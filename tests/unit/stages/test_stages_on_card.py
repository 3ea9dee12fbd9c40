"""The stages that compute with torch, on a graphics card that only pretends to be there."""

from contextlib import nullcontext

import numpy as np
from pretend_card import card

from sbr_core.artifacts.rows import Inferred, read_rows
from sbr_core.config import InferOptions, RegistrarOptions, SbrOptions
from sbr_core.io.volumes import read_plane
from sbr_core.io.weights import load_weights
from sbr_core.stages import infer, train, train_registrar

REGISTRAR = {"encoder_channels": (4, 8), "decoder_channels": (8, 4), "batch_size": 2, "steps": 2}
SBR = {"generator_channels": 4, "residual_blocks": 1, "n_samples": 16, "steps": 2}
REFINED = {"batch_size": 8, "refine_steps": 2, "refine_window_px": 5, "refine_mind_weight": 1.0}


def trained_and_inferred(brain, folder, device):
    """Weights of registrar and method, and every picture that `infer` wrote, by name."""
    common = {"planes": brain.table("resample"), "checkpoint_root": folder / "checkpoints"}
    train_registrar.run(
        RegistrarOptions(**REGISTRAR, device=device), out_dir=folder / "registrar", **common
    )
    weights = [folder / name / "weights.safetensors" for name in ("registrar", "sbr")]
    sections = brain.table("align_sections")
    train.run(
        SbrOptions(**SBR, device=device),
        method="sbr",
        sections=sections,
        registrar=weights[0],
        out_dir=weights[1].parent,
        **common,
    )
    receipt = folder / "infer" / "chunks" / "all.tsv"
    infer.run(
        InferOptions(**REFINED, device=device),
        method="sbr",
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        affines=sections,
        out_dir=folder / "infer",
        receipt=receipt,
        registrar=weights[0],
        weights=weights[1],
    )
    names = [n for row in read_rows(receipt, Inferred) for n in row.files if n.endswith(".nii.gz")]
    pictures = {name: read_plane(folder / "infer" / name)[0] for name in names}
    return [load_weights(path)[0] for path in weights], pictures


def test_stages_compute_on_a_card_what_they_do_on_the_processor(fake_brain, tmp_path):
    found = []
    for name in ("auto", "cpu"):
        with nullcontext() if name == "cpu" else card() as seen:
            found.append(trained_and_inferred(fake_brain, tmp_path / name, name))
            assert name == "cpu" or seen.launches
    (on_card, pictures), (on_cpu, same_pictures) = found
    for ours, theirs in zip(on_card, on_cpu, strict=True):
        assert set(ours) == set(theirs)
        for key, tensor in ours.items():
            np.testing.assert_allclose(tensor, theirs[key], atol=1e-3, err_msg=key)
    assert set(pictures) == set(same_pictures) and len(pictures) > 20
    for name, picture in pictures.items():
        assert np.abs(picture - same_pictures[name]).mean() < 0.02, name
