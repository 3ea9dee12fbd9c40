"""`sbr infer`: of each section of a chunk, the transforms both ways and the registered image.

`linear` is the section's affine alone. A trained method adds a deformation: with S the section
through its affine and T its MRI plane, v = R(T, G(S)), phi = exp(v) maps points of the plane to
where they are found in S, and exp(-v) maps them back. `refine_steps` then improves v a little, for
each section by itself. A registrar trained on pairs of S and T gives v = R(T, S), and so does, for
`mind`, the registrar that ships; without a G only self-similarity refines it. `syn_mi` finds phi
by ANTs. `coherent` takes another method's v and adds what `cohere` found.

While networks compute, a thread reads the next sections, and others integrate, measure and write
those that are done.

Torch is imported where something is deformed, which `linear` does without: it takes longer than the
affines of a chunk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.artifacts import names
from sbr_core.artifacts.coherence import CoherentPredictor, Followed
from sbr_core.artifacts.constraints import Constraints
from sbr_core.artifacts.joined import Joined, join
from sbr_core.artifacts.receipts import SectionResult, run_sections, unfinished
from sbr_core.artifacts.rows import Inferred, fingerprint
from sbr_core.artifacts.section_signal import registered
from sbr_core.config import CoherentOptions, InferOptions, MindOptions, SynOptions
from sbr_core.errors import ConfigError, ImageError
from sbr_core.geometry import apply
from sbr_core.io.files import sha256_file, sha256_of
from sbr_core.io.transforms import PlaneField, SectionTransform, write_section_transform
from sbr_core.io.volumes import write_plane
from sbr_core.methods import REGISTRY, imported
from sbr_core.revisions import REVISION

if TYPE_CHECKING:
    from sbr_core.algorithms.deformation import Deformation
    from sbr_core.artifacts.predictors import Prediction, Predictor

logger = logging.getLogger(__name__)


def run(
    options: InferOptions | MindOptions | SynOptions | CoherentOptions,
    *,
    method: str,
    prepared: Path,
    planes: Path,
    affines: Path,
    out_dir: Path,
    receipt: Path,
    registrar: Path | None = None,
    weights: Path | None = None,
    followed: Path | None = None,
    changes: Path | None = None,
    strict: bool = False,
) -> None:
    """Compute deformations and pictures of each section.

    Parameters
    ----------
    options : of ``syn_mi``, ``mind`` and ``coherent`` their own, `InferOptions` for every other
        method.
    method : name of the method.
    prepared : receipt of prepare.
    planes : receipt of resample.
    affines : receipt of align-sections.
    out_dir : folder of the method, which gets ``transforms/`` and ``sections/``.
    receipt : table to write: each section, its files and their sha256.
    registrar : weights of the registration network; not needed where those of the method contain
        one.
    weights : weights of the method's own networks.
    followed : table of the method whose deformations are corrected, of ``coherent``.
    changes : table of cohere, likewise.
    strict : stop at the first section that cannot be used.

    Raises
    ------
    ConfigError
        A trained method without weights, or without any registrar; ``coherent`` without the tables.
    WeightsError
        Weights that do not fit, or R and G of different pixel sizes.
    """
    networks: list[Path] = []
    if REGISTRY[method].trained:
        if weights is None:
            raise ConfigError(f"infer: method '{method}': --weights are needed")
        networks = [path for path in (weights, registrar) if path is not None]
    elif REGISTRY[method].starts_at_shipped:
        networks = [names.SHIPPED_REGISTRAR]
    follows = None
    if REGISTRY[method].follows:
        if followed is None or changes is None:
            raise ConfigError(f"infer: method '{method}': --followed and --changes are needed")
        follows = Followed.read(followed, changes)
    sections = join(prepared, planes, affines)
    # other networks or another refinement give another result; batch size and device change nothing
    inputs: list[Any] = [sha256_file(path) for path in networks]
    if method != "linear":
        inputs.append(options.model_dump(mode="json", exclude={"batch_size", "device"}))

    def digest(pair: Joined | str) -> str:
        if isinstance(pair, str):
            return sha256_of({"failed": pair})
        return fingerprint(
            [REVISION["infer"], REVISION.get(method, 0)],
            method=method,
            weights=inputs,
            prepared=pair.prepared.fingerprint,
            planes=pair.plane.fingerprint,
            affines=pair.affine.fingerprint,
            **({} if follows is None else {"follows": follows.digests(pair.section)}),
        )

    predictor: Predictor | None = None
    if follows is not None:
        predictor = CoherentPredictor(follows)
    elif method != "linear":
        # without networks nothing is done ahead, so nothing needs to be looked through twice
        to_do = unfinished(sections, out_dir=out_dir, fingerprint=digest) if networks else []
        waiting = {s: pair for s in to_do if isinstance(pair := sections[s], Joined)}
        if (path := REGISTRY[method].predictor) is not None:
            predictor = imported(path)(options, waiting)
        else:
            from sbr_core.artifacts.predictors import NetworkPredictor

            predictor = NetworkPredictor(*networks, waiting=waiting, options=options)
    run_sections(
        sections,
        stage="infer",
        out_dir=out_dir,
        receipt=receipt,
        fingerprint=digest,
        process=lambda pair: begin_section(pair, predictor, out_dir),
        strict=strict,
    )


def begin_section(
    pair: Joined | str, predictor: Predictor | None, out_dir: Path
) -> Callable[[], SectionResult]:
    """Find the deformation of a section; what is returned writes its transforms and pictures.

    Parameters
    ----------
    pair : of `join`.
    predictor : None for `linear`.

    Raises
    ------
    ImageError
        A stage before could not do the section.
    """
    if isinstance(pair, str):
        raise ImageError(pair)
    began = time.monotonic()
    prediction = predictor.predict(pair) if predictor is not None else None
    return partial(finish_section, pair, prediction, out_dir, time.monotonic() - began)


def finish_section(
    pair: Joined, prediction: Prediction | None, out_dir: Path, seconds: float
) -> SectionResult:
    """Write the transforms and pictures of one section.

    Parameters
    ----------
    prediction : None for `linear`.
    seconds : that it took to find.
    """
    began = time.monotonic()
    section, grid = pair.section, pair.grid
    constraints, doubts = Constraints.of_row(pair.affine), []
    forward: tuple[Any, ...] = (pair.section_mm_from_plane_mm,)
    backward: tuple[Any, ...] = (np.linalg.inv(pair.section_mm_from_plane_mm),)
    pictures: dict[str, tuple[np.ndarray, tuple[float, float]]] = {}
    measures = dict.fromkeys(_MEASURES, 0.0)
    if prediction is not None:
        deformation, synthesised = prediction.deform(), prediction.synthesised
        if constraints is not None:
            deformation, doubts = _held(pair, deformation, constraints, prediction.plane_mask)
        measures = _measure(deformation, prediction.plane_mask, prediction.section_mask)
        mm, origin_mm = grid.spacing_mm, deformation.canvas.origin_mm
        forward = (PlaneField(deformation.disp_px * mm, mm, origin_mm), *forward)
        backward = (*backward, PlaneField(deformation.inverse_disp_px * mm, mm, origin_mm))
        if synthesised is not None:
            pictures[names.SYNTHESISED] = (synthesised, (0.0, 0.0))
        if deformation.velocity_px is not None:
            velocity_mm = (deformation.velocity_px * mm).astype(np.float32)
            pictures[names.VELOCITY] = (velocity_mm, origin_mm)

    section_mm_from_plane = SectionTransform(forward)
    both = names.SECTION_TO_STACK, names.STACK_TO_SECTION
    files = [names.section_file(out_dir, section, ending) for ending in both]
    write_section_transform(files[0], section_mm_from_plane)
    write_section_transform(files[1], SectionTransform(backward))
    pictures[names.REGISTERED] = (
        registered(pair.prepared, section_mm_from_plane, grid),
        (0.0, 0.0),
    )
    for ending, (array, origin_mm) in pictures.items():
        files.append(names.section_file(out_dir, section, ending))
        write_plane(files[-1], array, grid.spacing_mm, origin_mm)
    for why in doubts:
        logger.warning(f"infer: WARNING: section {section!r}: {why}")
    row = Inferred(
        section=section,
        message="; ".join(doubts),
        position_mm=pair.prepared.position_mm,
        grid=grid,
        **measures,
        seconds=round(seconds + time.monotonic() - began, 3),
        landmarks_mm=_landmarks_mm(section_mm_from_plane, pair, constraints),
    )
    return SectionResult(row, files)


def _held(
    pair: Joined, deformation: Deformation, constraints: Constraints, plane_mask: np.ndarray
) -> tuple[Deformation, list[str]]:
    """A deformation that obeys the landmarks of a section, and of which it does not, in words."""
    from sbr_core.algorithms.landmark_hold import hold

    mm = pair.grid.spacing_mm
    plane_from_section = np.linalg.inv(pair.section_mm_from_plane_mm)
    places_px = apply(plane_from_section, constraints.section_mm) / mm
    tolerance_px = pair.affine.landmark_tolerance_mm / mm
    held = hold(deformation, constraints.plane_mm / mm, places_px, tolerance_px, plane_mask)
    doubts = [
        f"landmark {name!r} is not obeyed: it would stretch the tissue around it as no tissue is;"
        f" it ends {held.apart_px[i] * mm:.1f} mm off"
        for i, name in enumerate(constraints.names)
        if i not in held.kept
    ]
    return held.deformation, doubts


def _landmarks_mm(
    section_from_plane: SectionTransform, pair: Joined, constraints: Constraints | None
) -> float | None:
    """How far on the plane the farthest landmark of a section is from its place; None of none."""
    if constraints is None:
        return None
    plane_from_section = np.linalg.inv(pair.section_mm_from_plane_mm)
    found, wanted = (
        apply(plane_from_section, mm)
        for mm in (section_from_plane.map(constraints.plane_mm), constraints.section_mm)
    )
    return round(float(np.linalg.norm(found - wanted, axis=1).max()), 4)


_MEASURES = ("folding_percent", "disp_mean_mm", "disp_max_mm", "inverse_mean_px", "inverse_p99_px")
"""Of the receipt; an affine alone has none of them."""


def _measure(
    deformation: Deformation, fixed_mask: np.ndarray, moving_mask: np.ndarray
) -> dict[str, float]:
    """The receipt's measures of a deformation, over tissue; there and back, the worse way round."""
    from sbr_core.algorithms.deformation import forward_folding_percent, there_and_back_px

    inside = fixed_mask > 0
    length_px = np.linalg.norm(deformation.canvas.crop(deformation.disp_px), axis=-1)[inside]
    there_and_back = there_and_back_px(deformation, fixed_mask, moving_mask)
    spacing_mm = deformation.canvas.grid.spacing_mm
    return {
        "folding_percent": forward_folding_percent(deformation, fixed_mask),
        "disp_mean_mm": float(length_px.mean()) * spacing_mm,
        "disp_max_mm": float(length_px.max()) * spacing_mm,
        "inverse_mean_px": max(float(way.mean()) for way in there_and_back),
        "inverse_p99_px": max(float(np.percentile(way, 99)) for way in there_and_back),
    }
