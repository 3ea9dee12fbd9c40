"""What finds the deformations of a chunk's sections: networks, or ANTs' SyN.

The networks see images as they saw them in training: the weights' pixel size, quantiles and
padding, whatever this brain's options say. Nothing here is random.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sbr_core.algorithms import deformation as flow
from sbr_core.algorithms.sections import image_on_grid, mask_on_grid
from sbr_core.algorithms.staining import find_channel
from sbr_core.algorithms.syn import register_syn
from sbr_core.artifacts.joined import Joined
from sbr_core.artifacts.names import LINEAR, LINEAR_MASK, MRI, MRI_MASK, SHIPPED_REGISTRAR
from sbr_core.artifacts.networks import load_method, load_registrar, unseen_stains
from sbr_core.artifacts.section_signal import Source, read_picture, through_transform
from sbr_core.config import InferOptions, MindOptions, SynOptions
from sbr_core.errors import ConfigError, ImageError, SbrError, WeightsError
from sbr_core.functional.intensity import normalise
from sbr_core.functional.masks import dilate, tissue_box, without_medium
from sbr_core.functional.warp import upsample_velocity
from sbr_core.geometry import PlaneGrid
from sbr_core.io.transforms import SectionTransform
from sbr_core.nn.generator import Generator
from sbr_core.nn.registrar import Registrar
from sbr_core.training.devices import pick_device
from sbr_core.training.predict import as_batch, crop, padding_px, predict
from sbr_core.training.refine import Views, refine, widened

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Seen:
    """The images of a pair as its files have them, (rows, columns) of the plane's grid.

    Attributes
    ----------
    pair : what they are of.
    plane, plane_mask : T and its tissue.
    section, section_mask : S and its tissue.
    """

    pair: Joined
    plane: np.ndarray
    plane_mask: np.ndarray
    section: np.ndarray
    section_mask: np.ndarray

    @classmethod
    def of(cls, pair: Joined, section: np.ndarray | None = None) -> Seen:
        """Read; `section` is taken for S, if given, instead of the image of `align-sections`."""
        plane, plane_mask = (pair.read(pair.plane, image) for image in (MRI, MRI_MASK))
        mask = pair.read(pair.affine, LINEAR_MASK)
        if section is None:
            section = pair.read(pair.affine, LINEAR)
        return cls(pair, plane, plane_mask, section, mask)

    def on_grid(self, target: PlaneGrid, quantiles: tuple[float, float]) -> list[np.ndarray]:
        """T, its mask, S, its mask: (rows, columns) of the grid `target`, intensities in [0, 1].

        Raises
        ------
        ImageError
            The section or its MRI plane has no tissue.
        """
        images = []
        for pixels, mask, what in (
            (self.plane, self.plane_mask, "its MRI plane has no tissue"),
            (self.section, self.section_mask, "no tissue within its MRI plane"),
        ):
            pixels = image_on_grid(pixels, self.pair.grid, target)
            inside = mask_on_grid(mask, self.pair.grid, target)
            if not inside.any():
                raise ImageError(f"section {self.pair.section!r}: {what}")
            images += [normalise(pixels, inside, *quantiles), inside]
        return images


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is found of a pair.

    Attributes
    ----------
    deform : computes the deformation on the plane's grid, which may be done beside other sections.
    plane_mask, section_mask : (rows, columns), where there is tissue.
    synthesised : (rows, columns), if there is one.
    """

    deform: Callable[[], flow.Deformation]
    plane_mask: np.ndarray
    section_mask: np.ndarray
    synthesised: np.ndarray | None = None


class Predictor(Protocol):
    """Whatever finds the deformations of a chunk's sections."""

    def predict(self, pair: Joined) -> Prediction:
        """The deformation of a section.

        Raises
        ------
        ImageError
            The section or its MRI plane has no tissue.
        """


class SynPredictor:
    """Deformations by ANTs' SyN at the working resolution, of images as networks see them."""

    def __init__(self, options: SynOptions, waiting: Mapping[str, Joined]) -> None:
        self.options = options

    def predict(self, pair: Joined) -> Prediction:
        """As of every `Predictor`; nothing is synthesised."""
        options, seen = self.options, Seen.of(pair)
        rule = options.intensity.low_quantile, options.intensity.high_quantile
        fixed, _, moving, _ = seen.on_grid(pair.grid, rule)
        deformation = register_syn(fixed, moving, pair.grid, options)
        return Prediction(lambda: deformation, seen.plane_mask, seen.section_mask)


@dataclass(frozen=True, eq=False)
class _Ready:
    """What a section needs to be predicted, read from its files.

    Attributes
    ----------
    seen : the files.
    coarse, fine : `Seen.on_grid` of the networks' grid and of the plane's own; None where nothing
        asks for it.
    """

    seen: Seen
    coarse: list[np.ndarray]
    fine: list[np.ndarray] | None


@dataclass(frozen=True, eq=False)
class _Shown:
    """A batch of pairs on one grid, padded, all (N, 1, H, W).

    Attributes
    ----------
    targets : T, cut to the tissue of S where they show medium.
    sections, tissue : S and its mask.
    compared, wide : the masks that a refinement compares in (`Views`).
    """

    targets: Tensor
    sections: Tensor
    tissue: Tensor
    compared: Tensor
    wide: Tensor


class BatchPredictor(ABC):
    """Deformations by a registrar, computed a batch of sections at a time.

    The networks work at the pixel that they were trained at, what refines their answer at that of
    the sections. While they work on a batch, a thread reads the sections of the next one.

    Parameters
    ----------
    waiting : the sections that will be asked for, in that order.

    Attributes
    ----------
    registrar, generator, preprocessing : set where a section waits; what the networks are given
        is prepared as `preprocessing` has it.
    """

    registrar: Registrar
    generator: Generator | None
    preprocessing: Mapping[str, Any]

    def __init__(self, options: InferOptions | MindOptions, waiting: Mapping[str, Joined]) -> None:
        self.options, self.waiting = options, dict(waiting)
        self.done: dict[str, tuple[np.ndarray, np.ndarray | None, Seen]] = {}
        self.device = pick_device(options.device) if waiting else None
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        self.ahead: dict[str, Future[_Ready]] = {}

    def predict(self, pair: Joined) -> Prediction:
        """As of every `Predictor`."""
        if pair.section not in self.done:
            self._predict_batch(pair)
        velocity_px, synthesised, seen = self.done.pop(pair.section)
        fastest_px = float(np.abs(velocity_px).max())
        if not fastest_px <= max(pair.grid.shape):
            raise ImageError(
                f"section {pair.section!r}: the networks move it by {fastest_px:g} px, farther than"
                f" its plane is wide ({max(pair.grid.shape)} px): are their weights damaged?"
            )
        deform = partial(flow.integrate, velocity_px, pair.grid)
        return Prediction(deform, seen.plane_mask, seen.section_mask, synthesised)

    def _predict_batch(self, pair: Joined) -> None:
        """Predict a section, and those after it that are ready, as many as make a batch."""
        grid, network_grid = pair.grid, self._network_grid(pair.grid)
        pairs = [self.waiting.pop(pair.section)]
        ready = [self._taken(pairs[0])]
        for name in list(self.waiting):
            if len(pairs) == self.options.batch_size:
                break
            if self.waiting[name].grid != grid:
                continue
            try:
                ready.append(self._taken(self.waiting[name]))
            except SbrError:
                continue  # it fails under its own name when its turn comes
            pairs.append(self.waiting.pop(name))
        self._read_ahead()
        shown = self._shown([each.coarse for each in ready], network_grid)
        velocity_half_px, synthesised = self._start(shown.targets, shown.sections, shown.tissue)
        if network_grid != grid:
            velocity_half_px, synthesised = self._carried(
                velocity_half_px, synthesised, network_grid, grid
            )
            shown = None
        if self._refines:
            shown = shown or self._shown([each.fine for each in ready], grid)
            velocity_half_px = self._refined(velocity_half_px, synthesised, shown)
        velocities = self._on_grid(velocity_half_px, grid)
        if synthesised is not None:
            synthesised = self._crop(synthesised, grid)[:, 0].numpy()
        for at, each in enumerate(pairs):
            image = None if synthesised is None else synthesised[at]
            self.done[each.section] = velocities[at], image, ready[at].seen

    @property
    def _refines(self) -> bool:
        """Whether there is anything that steps could improve by."""
        compares = self.generator is not None or self.options.refine_mind_weight > 0
        return self.options.refine_steps > 0 and compares

    def _network_grid(self, grid: PlaneGrid) -> PlaneGrid:
        """The grid on which networks see what lies on `grid`."""
        pixel_mm = self.preprocessing["working_pixel_mm"]
        if pixel_mm is None or math.isclose(pixel_mm, grid.spacing_mm, rel_tol=1e-6):
            return grid
        return grid.at_spacing(float(pixel_mm))

    def _read_ahead(self) -> None:
        """Have the next sections read, as many as make a batch."""
        for name in list(self.waiting)[: self.options.batch_size]:
            if name not in self.ahead:
                self.ahead[name] = self.reader.submit(self._ready, self.waiting[name])

    def _taken(self, pair: Joined) -> _Ready:
        """What was read of a section ahead, or is read now; raises what reading it raised."""
        future = self.ahead.pop(pair.section, None)
        return self._ready(pair) if future is None else future.result()

    def _ready(self, pair: Joined) -> _Ready:
        """A section's images, as the networks take them and as what refines their answer does."""
        rule = self.preprocessing["low_quantile"], self.preprocessing["high_quantile"]
        # before channels were written down, there was luminance only
        learnt = self.preprocessing.get("channels") or ["grey"]
        section = None if pair.prepared.channel in learnt else _in_channel(pair, learnt[0])
        seen, network_grid = Seen.of(pair, section), self._network_grid(pair.grid)
        coarse = seen.on_grid(network_grid, rule)
        again = self._refines and network_grid != pair.grid
        return _Ready(seen, coarse, seen.on_grid(pair.grid, rule) if again else None)

    def _shown(self, images: list[list[np.ndarray]], grid: PlaneGrid) -> _Shown:
        """A batch of `Seen.on_grid` of `grid`, planes cut as the networks' training had them."""
        fixed, fixed_masks, moving, moving_masks = zip(*images, strict=True)
        tissue, plane_masks = self._batch(moving_masks), self._batch(fixed_masks)
        trained_mm = self.preprocessing["working_pixel_mm"] or grid.spacing_mm
        targets, masks, compared = without_medium(
            self._batch(fixed),
            plane_masks,
            tissue,
            share=self.preprocessing["medium_share"],
            margin_px=round(self.preprocessing["medium_margin_px"] * trained_mm / grid.spacing_mm),
            edge_px=self.options.refine_edge_px,
        )
        wide = widened(plane_masks, masks, compared, self.options.refine_rim_px)
        return _Shown(targets, self._batch(moving), tissue, compared, wide)

    def _carried(
        self,
        velocity_half_px: Tensor,
        synthesised: Tensor | None,
        source: PlaneGrid,
        target: PlaneGrid,
    ) -> tuple[Tensor, Tensor | None]:
        """What the networks found on their grid `source`, on the grid `target`, both padded."""
        velocities = self._on_grid(velocity_half_px, source)
        moved = [flow.resample_velocity(one, source, target) for one in velocities]
        top, bottom, left, right = padding_px(target.shape, self._multiple)
        batch = torch.from_numpy(np.moveaxis(np.stack(moved), -1, 1).astype(np.float32))
        batch = F.pad(batch, (left, right, top, bottom), mode="replicate")
        if synthesised is not None:
            images = self._crop(synthesised, source)[:, 0].numpy()
            synthesised = self._batch([image_on_grid(one, source, target) for one in images])
        return F.avg_pool2d(batch, 2) / 2, synthesised

    def _refined(
        self, velocity_half_px: Tensor, synthesised: Tensor | None, shown: _Shown
    ) -> Tensor:
        """The velocities after the steps of the options, on the CPU."""
        views = Views(shown.targets, shown.sections, synthesised, shown.compared, shown.wide)
        start = velocity_half_px.to(self.device)
        return refine(self.registrar, start, views.to(self.device), self.options).cpu()

    def _on_grid(self, velocity_half_px: Tensor, grid: PlaneGrid) -> list[np.ndarray]:
        """Velocities of the padded half grid as (rows, columns, 2) float64 on `grid`, in its px."""
        shape = tuple(2 * n for n in velocity_half_px.shape[-2:])
        velocity_px = self._crop(upsample_velocity(velocity_half_px, shape), grid)
        return [np.moveaxis(one, 0, -1) for one in velocity_px.double().numpy()]

    @property
    def _multiple(self) -> int:
        return int(self.preprocessing["padding_multiple"])

    def _batch(self, arrays: Sequence[np.ndarray]) -> Tensor:
        return as_batch(arrays, self._multiple)

    def _crop(self, images: Tensor, grid: PlaneGrid) -> Tensor:
        return crop(images, grid.shape, self._multiple)

    @abstractmethod
    def _start(
        self, targets: Tensor, section: Tensor, tissue: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Velocities of the half grid, px, before any refinement, and what was synthesised.

        Parameters
        ----------
        targets, section, tissue : (N, 1, H, W): T, S and the mask of S, padded.
        """


class NetworkPredictor(BatchPredictor):
    """Deformations and synthesised images by the networks of a method.

    The networks are loaded only if a section waits for them. Weights that do not fit are a fault
    of the whole chunk, so they show here and not under one section's name.

    Parameters
    ----------
    weights : of the method's networks.
    registrar : of the shared R, for a method without its own.
    waiting : as of `BatchPredictor`.

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
        registrar: Path | None = None,
        *,
        waiting: Mapping[str, Joined],
        options: InferOptions,
    ) -> None:
        super().__init__(options, waiting)
        if not waiting:
            return
        self.registrar, self.generator, header = load_method(weights)
        self.preprocessing = header["preprocessing"]
        for line in self._differences(weights, header):
            logger.warning(f"infer: {line}")
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

    def _differences(self, weights: Path, header: Mapping[str, Any]) -> list[str]:
        """A line for each way in which the sections are not those the networks were trained on."""
        rows = [pair.prepared for pair in self.waiting.values()]
        stains = sorted({row.stain for row in rows} - {""})
        lines = unseen_stains(weights, header, ",".join(stains), [row.channel for row in rows])
        ours_mm = next(iter(self.waiting.values())).grid.spacing_mm
        theirs_mm = float(self.preprocessing["working_pixel_mm"])
        if ours_mm > 1.5 * theirs_mm:
            lines.append(
                f"{weights}: was trained at {theirs_mm:g} mm, finer than these sections can show;"
                f" sections of {ours_mm:g} mm are resampled for it"
            )
        return lines

    def _start(
        self, targets: Tensor, section: Tensor, tissue: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """As of `BatchPredictor`."""
        registers = self.preprocessing["registers"]
        velocity_half_px, image = predict(
            self.registrar,
            self.generator,
            targets,
            section,
            dilate(tissue, int(self.preprocessing["synthesis_rim_px"])),
            device=self.device,
            registers=registers,
            # the other way round is known to a registrar of like images only
            symmetric=self.options.symmetric and registers == "synthesised",
        )
        return velocity_half_px, image if self.generator is not None else None


class MindPredictor(BatchPredictor):
    """Deformations without training: the answer of the registrar that ships, then refined."""

    def __init__(self, options: MindOptions, waiting: Mapping[str, Joined]) -> None:
        super().__init__(options, waiting)
        if not waiting:
            return
        self.registrar, header = load_registrar(SHIPPED_REGISTRAR)
        self.generator = None
        self.preprocessing = {
            **header["preprocessing"],
            **options.intensity.model_dump(),
            "medium_share": options.medium_share,
            "medium_margin_px": options.medium_margin_px,
            # nothing was learnt of any stain
            "channels": sorted({pair.prepared.channel for pair in waiting.values()}),
        }

    def _start(
        self, targets: Tensor, section: Tensor, tissue: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """As of `BatchPredictor`."""
        each = zip(targets.split(1), section.split(1), tissue.split(1), strict=True)
        return torch.cat([self._start_of(*one) for one in each]), None

    def _start_of(self, target: Tensor, section: Tensor, tissue: Tensor) -> Tensor:
        """One velocity, at a pixel at which the tissue is as large as in the registrar's training.

        Section by section, since the pixel follows from the section's own size.
        """
        level = 1
        box = tissue_box(torch.cat((target, tissue), 1), multiple=1, margin_px=0)
        while max(s.stop - s.start for s in box) > self.options.registrar_extent_px * level:
            level *= 2
        multiple = level * int(self.preprocessing["padding_multiple"])
        # zeros behind, so that pixel (0, 0) stays where it is
        rows, columns = (-n % multiple for n in target.shape[-2:])
        coarse = [F.avg_pool2d(F.pad(t, (0, columns, 0, rows)), level) for t in (target, section)]
        velocity_half_px, _ = predict(
            self.registrar, None, *coarse, device=self.device, registers="section"
        )
        fine = F.interpolate(
            velocity_half_px, scale_factor=float(level), mode="bilinear", align_corners=False
        )
        return level * fine[..., : target.shape[-2] // 2, : target.shape[-1] // 2]


def _in_channel(pair: Joined, stain: str) -> np.ndarray:
    """The section through its affine, as `align_sections` writes it, in another channel."""
    picture = read_picture(pair.prepared, pair.grid.spacing_mm)
    source = Source.of(pair.prepared)
    channel, _ = find_channel(source.lit_evenly(picture.pixels), stain)
    signal = replace(source, channel=channel).signal(picture.pixels)
    return through_transform(
        replace(picture, pixels=signal).within(pair.prepared.box),
        pair.prepared.pixel_size_mm,
        SectionTransform((pair.section_mm_from_plane_mm,)),
        pair.grid,
    )
