"""`sbr infer`: of each section of a chunk, the transforms both ways and the registered image.

`linear` is the section's affine alone. A trained method adds a deformation: with S the section
through its affine and T its MRI plane, v = R(T, G(S)), phi = exp(v) maps points of the plane to
where they are found in S, and exp(-v) maps them back. `refine_steps` then improves v a little, for
each section by itself. A registrar trained on pairs of S and T gives v = R(T, S); without a G
there is nothing to refine by. `syn_mi` finds phi by ANTs.

The networks see images as they saw them in training: the weights' pixel size, quantiles and
padding, whatever this brain's options say. Nothing here is random.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms import deformation as flow
from sbr_core.algorithms.sections import (
    area_vote,
    grid_px,
    prefilter,
    resample_section,
)
from sbr_core.algorithms.staining import find_channel
from sbr_core.algorithms.syn import register_syn
from sbr_core.artifacts.networks import load_method, load_registrar, unlike
from sbr_core.artifacts.receipts import (
    SectionResult,
    file_of,
    matrix_of,
    read_table,
    run_sections,
    unfinished,
)
from sbr_core.artifacts.section_signal import Source, read_for, read_signal
from sbr_core.config import InferOptions, SynOptions
from sbr_core.errors import ConfigError, ImageError, ReceiptError, SbrError, WeightsError
from sbr_core.functional.intensity import normalise
from sbr_core.functional.masks import dilate, without_medium
from sbr_core.functional.warp import upsample_velocity
from sbr_core.geometry import PlaneGrid
from sbr_core.io.blocks import Picture
from sbr_core.io.files import sha256_file, sha256_of
from sbr_core.io.transforms import (
    PlaneField,
    SectionTransform,
    section_to_stack_path,
    stack_to_section_path,
    write_section_transform,
)
from sbr_core.io.volumes import read_plane, write_plane
from sbr_core.methods import TRAINED_METHODS
from sbr_core.revisions import REVISION
from sbr_core.training.devices import pick_device
from sbr_core.training.predict import as_batch, crop, predict
from sbr_core.training.refine import refine

STAGE = "infer"


def run(
    options: InferOptions | SynOptions,
    *,
    method: str,
    prepared: Path,
    planes: Path,
    affines: Path,
    out_dir: Path,
    receipt: Path,
    registrar: Path | None = None,
    weights: Path | None = None,
    strict: bool = False,
) -> None:
    """Compute deformations and pictures of each section.

    Parameters
    ----------
    options : `SynOptions` for ``syn_mi``, `InferOptions` for every other method.
    method : name of the method.
    prepared : receipt of prepare.
    planes : receipt of resample.
    affines : receipt of align-sections.
    out_dir : folder of the method, which gets ``transforms/`` and ``sections/``.
    receipt : table to write: each section, its files and their sha256.
    registrar : weights of the registration network; not needed where those of the method contain
        one.
    weights : weights of the method's own networks.
    strict : stop at the first section that cannot be used.

    Raises
    ------
    ConfigError
        A trained method without weights, or without any registrar.
    WeightsError
        Weights that do not fit, or R and G of different pixel sizes.
    """
    networks: tuple[Path, Path | None] | None = None
    if method in TRAINED_METHODS:
        if weights is None:
            raise ConfigError(f"infer: method '{method}': --weights are needed")
        networks = Path(weights), Path(registrar) if registrar is not None else None
    tables = {"prepared": prepared, "planes": planes, "affines": affines}
    sections = _joined({name: Path(table) for name, table in tables.items()})
    # other networks or another refinement give another result; batch size and device change nothing
    inputs: list[Any] = [sha256_file(path) for path in networks or () if path is not None]
    if method != "linear":
        inputs.append(options.model_dump(mode="json", exclude={"batch_size", "device"}))

    def fingerprint(item: Mapping[str, Any]) -> str:
        if "failed" in item:
            return sha256_of(item)
        return sha256_of(
            {
                "method": method,
                "revision": [REVISION[STAGE], REVISION.get(method, 0)],
                "weights": inputs,
                **{name: item[name]["fingerprint"] for name in tables},
            }
        )

    out_dir = Path(out_dir)
    predictor: Predictor | None = None
    if method == "syn_mi":
        predictor = SynPredictor(tables, sections, options)
    elif networks is not None:
        todo = unfinished(sections, out_dir=out_dir, fingerprint=fingerprint)
        waiting = {name: sections[name] for name in todo if "failed" not in sections[name]}
        predictor = NetworkPredictor(*networks, tables, waiting, options)

    def process(item: Mapping[str, Any]) -> SectionResult:
        if "failed" in item:
            raise ImageError(item["failed"])
        return infer_section(item, tables, predictor, out_dir)

    run_sections(
        sections,
        stage=STAGE,
        out_dir=out_dir,
        receipt=receipt,
        fingerprint=fingerprint,
        process=process,
        strict=strict,
    )


def _joined(tables: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """section -> {table name: its row}, or {"failed": why} if a stage before could not do it."""
    rows = {
        name: {row["section"]: row for row in read_table(table, only_ok=False)}
        for name, table in tables.items()
    }
    sections: dict[str, dict[str, Any]] = {}
    for section in dict.fromkeys(s for table in rows.values() for s in table):
        item = {name: table.get(section) for name, table in rows.items()}
        absent = [str(tables[name]) for name, row in item.items() if row is None]
        failed = [row["message"] for row in item.values() if row and row["status"] != "ok"]
        if failed:
            item = {"failed": failed[0]}
        elif absent:
            item = {"failed": f"section {section!r} is not in {absent[0]}"}
        sections[section] = item
    return sections


def plane_grid(row: Mapping[str, Any]) -> PlaneGrid:
    """The grid that a row's columns `rows`, `columns` and `spacing_mm` describe."""
    return PlaneGrid((int(row["rows"]), int(row["columns"])), float(row["spacing_mm"]))


def resample_plane(image: np.ndarray, source: PlaneGrid, target: PlaneGrid) -> np.ndarray:
    """An image of a plane on another grid with the same origin; float32, 0 outside."""
    if source == target:
        return np.asarray(image, np.float32)
    ratio = target.spacing_mm / source.spacing_mm
    return resample_section(prefilter(image, ratio), grid_px(target.shape) * ratio)


def resample_mask(mask: np.ndarray, source: PlaneGrid, target: PlaneGrid) -> np.ndarray:
    """A mask of a plane on another grid with the same origin, by area; bool."""
    mask = np.asarray(mask) > 0
    if source == target:
        return mask
    ratio = target.spacing_mm / source.spacing_mm
    return area_vote(mask, geometry.scaling(ratio), target.shape)


class Predictor(Protocol):
    """Whatever finds the deformations of a chunk's sections."""

    def predict(self, section: str) -> tuple[flow.Deformation, np.ndarray | None]:
        """(deformation on the plane's grid; synthesised image (rows, columns), if there is one).

        Raises
        ------
        ImageError
            The section or its MRI plane has no tissue.
        """


class SynPredictor:
    """Deformations by ANTs' SyN at the working resolution, of images as networks see them.

    Parameters
    ----------
    tables, sections : as in `run`.
    """

    def __init__(
        self,
        tables: Mapping[str, Path],
        sections: Mapping[str, Mapping[str, Any]],
        options: SynOptions,
    ) -> None:
        self.tables, self.sections, self.options = tables, sections, options

    def predict(self, section: str) -> tuple[flow.Deformation, None]:
        """As of every `Predictor`; nothing is synthesised."""
        item, options = self.sections[section], self.options
        grid = plane_grid(item["planes"])
        rule = options.intensity.low_quantile, options.intensity.high_quantile
        fixed, _, moving, _ = _images(self.tables, item, grid, grid, rule)
        found = register_syn(
            fixed,
            moving,
            grid,
            bins=options.bins,
            iterations=options.iterations,
            gradient_step=options.gradient_step,
            flow_sigma_px=options.flow_sigma_px,
            total_sigma_px=options.total_sigma_px,
            seed=options.seed,
        )
        return found, None


class NetworkPredictor:
    """Deformations and synthesised images by networks, computed a batch at a time.

    The networks are loaded only if a section waits for them. Weights that do not fit are a fault
    of the whole chunk, so they show here and not under one section's name.

    Parameters
    ----------
    weights : of the method's networks.
    registrar : of the shared R, for a method without its own.
    tables : receipts by name, as in `run`.
    waiting : the sections that will be asked for, in that order.

    Raises
    ------
    ConfigError
        No registrar, neither shared nor the method's own.
    WeightsError
        Weights that do not fit, or R and G of different preprocessing.
    """

    def __init__(
        self,
        weights: Path,
        registrar: Path | None,
        tables: Mapping[str, Path],
        waiting: Mapping[str, Mapping[str, Any]],
        options: InferOptions,
    ) -> None:
        self.tables = tables
        self.sections, self.waiting = waiting, dict(waiting)
        self.options = options
        self.done: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
        if not waiting:
            return
        self.device = pick_device(options.device)
        self.registrar, self.generator, header = load_method(weights)
        self.preprocessing = header["preprocessing"]
        for line in self._unlike(weights, header):
            print(f"{STAGE}: {line}", file=sys.stderr)
        if self.registrar is not None:
            return
        if registrar is None:
            raise ConfigError(f"infer: {weights} holds no registrar: --registrar is needed")
        self.registrar, registrar_header = load_registrar(registrar)
        for key in ("working_pixel_mm", "padding_multiple", "polarity"):
            ours, theirs = self.preprocessing[key], registrar_header["preprocessing"][key]
            # a registrar that serves any pixel size names none
            if ours != theirs and theirs is not None:
                raise WeightsError(f"{weights}: {key} {ours} differs from {theirs} in {registrar}")

    def _unlike(self, weights: Path, header: Mapping[str, Any]) -> list[str]:
        """A line for each way in which the sections are not those the networks were trained on."""
        rows = [item["prepared"] for item in self.waiting.values()]
        stains = sorted({str(row.get("stain") or "") for row in rows} - {""})
        channels = [row.get("channel") or "grey" for row in rows]
        lines = unlike(weights, header, ",".join(stains), channels)
        ours_mm = plane_grid(next(iter(self.waiting.values()))["planes"]).spacing_mm
        theirs_mm = float(self.preprocessing["working_pixel_mm"])
        if not math.isclose(ours_mm, theirs_mm, rel_tol=1e-6):
            coarse = ", finer than these sections can show" if ours_mm > 1.5 * theirs_mm else ""
            lines.append(
                f"{weights}: was trained at {theirs_mm:g} mm{coarse}; sections of {ours_mm:g} mm"
                " are resampled for it"
            )
        return lines

    def predict(self, section: str) -> tuple[flow.Deformation, np.ndarray | None]:
        """As of every `Predictor`."""
        grid = plane_grid(self.sections[section]["planes"])
        if section not in self.done:
            self._predict_batch(section)
        velocity_px, synthesised = self.done.pop(section)
        return flow.integrate(velocity_px, grid), synthesised

    def _predict_batch(self, section: str) -> None:
        grid = plane_grid(self.waiting[section]["planes"])
        network_grid = grid
        pixel_mm = float(self.preprocessing["working_pixel_mm"])
        if not math.isclose(pixel_mm, grid.spacing_mm, rel_tol=1e-6):
            network_grid = grid.at_spacing(pixel_mm)
        names = [section]
        pairs = [self._inputs(self.waiting.pop(section), grid, network_grid)]
        for name in list(self.waiting):
            if len(names) == self.options.batch_size:
                break
            if plane_grid(self.waiting[name]["planes"]) != grid:
                continue
            try:
                pairs.append(self._inputs(self.waiting[name], grid, network_grid))
            except SbrError:
                continue  # it fails under its own name when its turn comes
            del self.waiting[name]
            names.append(name)
        fixed, fixed_masks, moving, moving_masks = zip(*pairs, strict=True)
        multiple = int(self.preprocessing["padding_multiple"])
        tissue = as_batch(moving_masks, multiple)
        targets, _, compared = without_medium(
            as_batch(fixed, multiple),
            as_batch(fixed_masks, multiple),
            tissue,
            share=self.preprocessing["medium_share"],
            margin_px=self.preprocessing["medium_margin_px"],
            edge_px=self.options.refine_edge_px,
        )
        velocity_half_px, synthesised = predict(
            self.registrar,
            self.generator,
            targets,
            as_batch(moving, multiple),
            dilate(tissue, int(self.preprocessing["synthesis_rim_px"])),
            device=self.device,
            registers=self.preprocessing["registers"],
            # the other way round is known to a registrar of like images only
            symmetric=self.options.symmetric and self.preprocessing["registers"] == "synthesised",
        )
        if self.options.refine_steps and self.generator is not None:
            velocity_half_px = refine(
                self.registrar,
                *(t.to(self.device) for t in (velocity_half_px, targets, synthesised)),
                compared.to(self.device),
                self.options,
            ).cpu()
        velocity_px = upsample_velocity(velocity_half_px, tuple(synthesised.shape[-2:]))
        velocity_px = crop(velocity_px, network_grid.shape, multiple).double().numpy()
        synthesised = crop(synthesised, network_grid.shape, multiple).numpy()
        for index, name in enumerate(names):
            on_network_grid = np.moveaxis(velocity_px[index], 0, -1)
            self.done[name] = (
                flow.resample_velocity(on_network_grid, network_grid, grid),
                (
                    resample_plane(synthesised[index, 0], network_grid, grid)
                    if self.generator is not None
                    else None
                ),
            )

    def _inputs(
        self, item: Mapping[str, Any], grid: PlaneGrid, network_grid: PlaneGrid
    ) -> list[np.ndarray]:
        """T, its mask, S, its mask, as the networks take them: (rows, columns) of their grid."""
        rule = self.preprocessing["low_quantile"], self.preprocessing["high_quantile"]
        # before channels were written down, there was luminance only
        learnt = self.preprocessing.get("channels") or ["grey"]
        own = item["prepared"].get("channel") or "grey"
        section = None if own in learnt else _in_channel(item, grid, learnt[0])
        return _images(self.tables, item, grid, network_grid, rule, section)


def _images(
    tables: Mapping[str, Path],
    item: Mapping[str, Any],
    grid: PlaneGrid,
    target: PlaneGrid,
    quantiles: tuple[float, float],
    section: np.ndarray | None = None,
) -> list[np.ndarray]:
    """T, its mask, S, its mask: (rows, columns) of the grid `target`, intensities in [0, 1].

    `section` is taken for S, if given, instead of the image in `tables`; on `grid`.
    """
    images = []
    for name, image, mask, what in (
        ("planes", "_mri.nii.gz", "_mrimask.nii.gz", "its MRI plane has no tissue"),
        ("affines", "_linear.nii.gz", "_linearmask.nii.gz", "no tissue within its MRI plane"),
    ):
        pixels = _plane(tables[name], item[name], image, grid)
        if name == "affines" and section is not None:
            pixels = section
        pixels = resample_plane(pixels, grid, target)
        inside = resample_mask(_plane(tables[name], item[name], mask, grid), grid, target)
        if not inside.any():
            raise ImageError(f"section {item[name]['section']!r}: {what}")
        images += [normalise(pixels, inside, *quantiles), inside]
    return images


def _plane(table: Path, row: Mapping[str, Any], ending: str, grid: PlaneGrid) -> np.ndarray:
    path = file_of(table, row, ending)
    array, spacing_mm = read_plane(path)
    same_spacing = math.isclose(spacing_mm, grid.spacing_mm, rel_tol=1e-5)  # NIfTI has float32
    if array.shape != grid.shape or not same_spacing:
        raise ReceiptError(
            f"{path}: is {array.shape} at {spacing_mm:g} mm, expected the plane's grid,"
            f" {grid.shape} at {grid.spacing_mm:g} mm"
        )
    return array


def infer_section(
    item: Mapping[str, Any],
    tables: Mapping[str, Path],
    predictor: Predictor | None,
    out_dir: Path,
) -> SectionResult:
    """Write the transforms and pictures of one section.

    Parameters
    ----------
    item : its rows in the tables, by name.
    predictor : None for `linear`.
    """
    began = time.monotonic()
    prepared_row, plane_row, affine_row = item["prepared"], item["planes"], item["affines"]
    section, grid = prepared_row["section"], plane_grid(plane_row)
    section_mm_from_plane_mm = np.asarray(matrix_of(prepared_row, "g")) @ np.asarray(
        matrix_of(affine_row, "a")
    )
    forward: tuple[Any, ...] = (section_mm_from_plane_mm,)
    backward: tuple[Any, ...] = (np.linalg.inv(section_mm_from_plane_mm),)
    pictures: dict[str, tuple[np.ndarray, tuple[float, float]]] = {}
    columns: dict[str, float] = dict.fromkeys(
        ("folding_percent", "disp_mean_mm", "disp_max_mm", "inverse_mean_px", "inverse_p99_px"), 0.0
    )

    if predictor is not None:
        found, synthesised = predictor.predict(section)
        fixed_mask = _plane(tables["planes"], plane_row, "_mrimask.nii.gz", grid)
        moving_mask = _plane(tables["affines"], affine_row, "_linearmask.nii.gz", grid)
        columns |= _measures(found, fixed_mask, moving_mask)
        mm, origin_mm = grid.spacing_mm, found.canvas.origin_mm
        forward = (PlaneField(found.disp_px * mm, mm, origin_mm), *forward)
        backward = (*backward, PlaneField(found.inverse_disp_px * mm, mm, origin_mm))
        if synthesised is not None:
            pictures["synthesised"] = (synthesised, (0.0, 0.0))
        if found.velocity_px is not None:
            pictures["velocity"] = ((found.velocity_px * mm).astype(np.float32), origin_mm)

    section_mm_from_plane = SectionTransform(forward)
    transforms = out_dir / "transforms"
    files = [section_to_stack_path(transforms, section), stack_to_section_path(transforms, section)]
    write_section_transform(files[0], section_mm_from_plane)
    write_section_transform(files[1], SectionTransform(backward))
    pictures["registered"] = (registered(prepared_row, section_mm_from_plane, grid), (0.0, 0.0))
    for name, (array, origin_mm) in pictures.items():
        files.append(out_dir / "sections" / f"{section}_{name}.nii.gz")
        write_plane(files[-1], array, grid.spacing_mm, origin_mm)
    return SectionResult(
        columns={
            "position_mm": prepared_row["position_mm"],
            "rows": grid.shape[0],
            "columns": grid.shape[1],
            "spacing_mm": grid.spacing_mm,
            **columns,
            "seconds": round(time.monotonic() - began, 3),
        },
        files=files,
    )


def _measures(
    found: flow.Deformation, fixed_mask: np.ndarray, moving_mask: np.ndarray
) -> dict[str, float]:
    """The receipt's measures of a deformation, over tissue; there and back, the worse way round."""
    inside = fixed_mask > 0
    length_px = np.linalg.norm(found.canvas.crop(found.disp_px), axis=-1)[inside]
    there_and_back = flow.there_and_back_px(found, fixed_mask, moving_mask)
    spacing_mm = found.canvas.grid.spacing_mm
    return {
        "folding_percent": flow.folding_percent(found, fixed_mask),
        "disp_mean_mm": float(length_px.mean()) * spacing_mm,
        "disp_max_mm": float(length_px.max()) * spacing_mm,
        "inverse_mean_px": max(float(way.mean()) for way in there_and_back),
        "inverse_p99_px": max(float(np.percentile(way, 99)) for way in there_and_back),
    }


def registered(
    prepared_row: Mapping[str, Any], section_mm_from_plane: SectionTransform, grid: PlaneGrid
) -> np.ndarray:
    """The section's file on the plane's grid, interpolated once through the whole chain.

    Parameters
    ----------
    prepared_row : of `prepare`: image, pixel size, polarity, background.

    Returns
    -------
    (rows, columns) float32, background 0, tissue above, in the file's intensity; beyond the
    file 0.
    """
    pixel_mm = float(prepared_row["pixel_size_mm"])
    signal = read_signal(prepared_row, grid.spacing_mm)
    return _on_plane(signal, pixel_mm, section_mm_from_plane, grid)


def _on_plane(
    signal: Picture, pixel_mm: float, section_mm_from_plane: SectionTransform, grid: PlaneGrid
) -> np.ndarray:
    """A file's signal on the plane's grid, interpolated once."""
    image = prefilter(signal.pixels, grid.spacing_mm / pixel_mm / signal.mean_step)
    plane_mm = geometry.apply(grid.plane_mm_from_px, grid_px(grid.shape))
    file_px = section_mm_from_plane.map(plane_mm) / pixel_mm
    return resample_section(image, geometry.apply(signal.px_from_file_px, file_px))


def _in_channel(item: Mapping[str, Any], grid: PlaneGrid, stain: str) -> np.ndarray:
    """The section through its affine, as `align_sections` writes it, in another channel."""
    row = item["prepared"]
    pixel_mm = float(row["pixel_size_mm"])
    read = read_for(row, grid.spacing_mm)
    own = Source.of(row)
    channel, _ = find_channel(own.lit_evenly(read.pixels), stain)
    affine = np.asarray(matrix_of(row, "g")) @ np.asarray(matrix_of(item["affines"], "a"))
    return _on_plane(
        replace(read, pixels=replace(own, channel=channel).signal(read.pixels)),
        pixel_mm,
        SectionTransform((affine,)),
        grid,
    )
