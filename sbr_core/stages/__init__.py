"""One module per stage: `run` joins the rooms that compute to the files they read and write."""

REVISION = {
    "demo": 1,
    "prepare": 1,
    "prepare_mri": 1,
    "align": 1,
    "resample": 1,
    "align_sections": 1,
    "train_registrar": 1,
    "train_sbr": 1,
    "infer": 1,
    "reassemble": 1,
    "evaluate": 1,
    "report": 1,
    "simulate": 1,
}
"""Raise a stage's number when its results change, and the workflow reruns it and what follows."""
