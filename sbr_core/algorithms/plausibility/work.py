"""What disk, memory and time a run will take, told before it is run.

Rates are those of finished runs on one core of a server (benchmarks/2026-11-25_slurm.md,
2026-11-22_demo.md, 2026-11-22_bigbrain.md): a run is told to a factor of about two, which is enough
to see that a disk is too small or that a night is not enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from sbr_core.algorithms.plausibility.finding import Finding

_MARGIN = 1.2
"""Sides of the planes' grid over those of the widest section: tissue of the MRI and a margin."""
_SHARED_BYTES, _DEFORMED_BYTES = 12.0, 115.0
"""Of each pixel of each section's plane on disk: image, mask, MRI plane and affine; and for each
method that deforms, its images and two compressed transforms. Allen's 93 sections of 18,500 px
take 243 MB with one such method, the demo's 48 of 16,000 px 102 MB."""
_VOLUME_BYTES = 3.0
"""Of each voxel of the volumes of one method, compressed."""
_LEAST_BYTES, _PER_VOXEL_BYTES = 0.7e9, 13.0
"""Memory of the largest job, which is a training or `align`: 0.68 GB with the demo's MRI, 0.93 GB
with bigbrain's of 15 million voxels."""
_PER_SECTION_S, _PER_PX_S, _ALIGN_S, _TRAINED_STEP_S = 1.0, 1e-5, 150.0, 0.35
"""Of one core: `prepare` to `align_sections` of a section, of each pixel of it more, `align`, and a
step of a training by the presets for a processor."""
_DEFORMED_S, _REFINED_PX_S = 0.8, 4e-7
"""Of `infer`: a section, and each pixel of it in each step of refinement."""
_FULL = 0.9
"""Share of the free disk from which on it is said to be too small."""


@dataclass(frozen=True)
class Plan:
    """What is to be done with a brain.

    Attributes
    ----------
    n_sections : that can be used.
    width_mm, height_mm : of the widest.
    working_pixel_mm : of the planes.
    n_voxels : of the MRI; 0 of a prealigned brain.
    n_methods, n_deforming : methods, and those of them that deform sections.
    training_steps : of all trainings of this brain.
    refine_steps : of each section and method.
    """

    n_sections: int
    width_mm: float
    height_mm: float
    working_pixel_mm: float
    n_voxels: int
    n_methods: int
    n_deforming: int
    training_steps: int
    refine_steps: int

    @property
    def plane_px(self) -> float:
        """Pixels of one plane."""
        return _MARGIN**2 * self.width_mm * self.height_mm / self.working_pixel_mm**2

    @property
    def disk_bytes(self) -> float:
        """Of all results."""
        px = self.n_sections * self.plane_px
        volumes = _VOLUME_BYTES * self.n_methods * self.n_voxels
        return px * (_SHARED_BYTES + _DEFORMED_BYTES * self.n_deforming) + volumes

    @property
    def memory_bytes(self) -> float:
        """Of the largest job."""
        return _LEAST_BYTES + _PER_VOXEL_BYTES * self.n_voxels

    @property
    def core_s(self) -> float:
        """Seconds of one core."""
        refined = _REFINED_PX_S * self.refine_steps * self.plane_px
        each = _PER_SECTION_S + _PER_PX_S * self.plane_px
        each += self.n_deforming * (_DEFORMED_S + refined)
        return (
            self.n_sections * each
            + _ALIGN_S * bool(self.n_voxels)
            + _TRAINED_STEP_S * self.training_steps
        )


def judge_work(plan: Plan, free_disk_bytes: float, memory_bytes: float) -> Finding:
    """What a run takes beside what the machine has.

    Parameters
    ----------
    free_disk_bytes : where results go.
    memory_bytes : of the machine that asks, which need not be the one that runs.
    """
    words = (
        f"about {_size(plan.disk_bytes)} of disk ({_size(free_disk_bytes)} free), up to"
        f" {_size(plan.memory_bytes)} of memory a job, {_time(plan.core_s)} of one core"
    )
    if plan.training_steps:
        words += f", {plan.training_steps} steps of training in it: far less on a graphics card"
    if plan.disk_bytes > _FULL * free_disk_bytes:
        return Finding("work", "doubtful", f"{words}: the disk is too small")
    if plan.memory_bytes > memory_bytes:
        return Finding(
            "work", "doubtful", f"{words}: this machine has {_size(memory_bytes)} of memory"
        )
    return Finding("work", "fine", words)


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.2g} h" if seconds >= 5400 else f"{max(seconds, 60) / 60:.0f} min"
