"""What decides, beside options and inputs, whether a stage's results still count."""

from __future__ import annotations

from sbr_core.methods import WITH_OPTIONS

REVISION = {
    "demo": 2,
    "check": 2,
    "prepare": 7,
    "prepare_mri": 2,
    "doctor": 4,
    "align": 6,
    "resample": 2,
    "align_sections": 5,
    "train_registrar": 1,
    "train_shapes": 1,
    **{method.section: method.revision for method in WITH_OPTIONS},
    "infer": 7,
    "reassemble": 2,
    "reassemble_colour": 1,
    "registered": 1,
    "trust": 2,
    "evaluate": 3,
    "compare": 2,
    "report": 7,
    "simulate": 3,
}
"""Raise the number of a stage, or that of a method in `sbr_core.methods`, when its results change,
and the workflow reruns it and what follows."""
