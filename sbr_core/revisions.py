"""What decides, beside options and inputs, whether a stage's results still count."""

from __future__ import annotations

REVISION = {
    "demo": 1,
    "prepare": 5,
    "prepare_mri": 1,
    "doctor": 4,
    "align": 4,
    "resample": 1,
    "align_sections": 3,
    "train_registrar": 1,
    "train_shapes": 1,
    "train_sbr": 3,
    "train_sbr_n": 1,
    "train_sbr_r": 2,
    "train_sbr_g": 2,
    "train_nmi": 2,
    "train_nmiw": 2,
    "train_cgan": 1,
    "train_rot": 1,
    "syn_mi": 1,
    "infer": 3,
    "reassemble": 2,
    "evaluate": 2,
    "compare": 2,
    "report": 4,
    "simulate": 2,
}
"""Raise the number of a stage, or of a method's section of the configuration, when its results
change, and the workflow reruns it and what follows."""
