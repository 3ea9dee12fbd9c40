"""A volume of sections with their own colours or channels: every voxel once, in both around it.

It follows `algorithms.reassembly`, which makes the same of one grey signal: what is filled, and how
much a section counts. Here sections are read by the rectangle, from the level of their pyramid that
serves, and samples stay what they are: nothing is evened or turned into light.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbr_core.algorithms.reassembly import Stack, stack_mm_of, voxels_by_section
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Inferred, Prepared
from sbr_core.errors import ImageError
from sbr_core.io.transforms import read_section_transform
from sbr_core.io.windows import Windows, open_windows
from sbr_core.mapping.lookup import Places, as_type
from sbr_core.mapping.section_files import SectionFile
from sbr_core.mapping.volume_frames import VolumeFrame


@dataclass(frozen=True)
class Kind:
    """What samples of all sections become.

    Attributes
    ----------
    photometric : ``rgb``, or ``minisblack`` of channels.
    dtype : of the samples, in the order of this machine.
    """

    channels: int
    dtype: np.dtype
    photometric: str
    names: tuple[str, ...] = ()

    def of(self, samples: np.ndarray) -> np.ndarray:
        """(n, channels) float32 of samples of one section: grey as colours, without opacity."""
        if samples.shape[1] == 1 < self.channels:
            samples = np.repeat(samples, self.channels, axis=1)
        return samples[:, : self.channels].astype(np.float32)


def kind_of(sections: Sequence[Prepared]) -> Kind:
    """What the sections' files have in common.

    Raises
    ------
    ImageError
        Another type, or other channels, than of those before.
    """
    found: Kind | None = None
    for row in sections:
        with open_windows(Path(row.image)) as windows:
            own = _kind(windows)
        if found is None:
            found = own
        elif own != found:
            is_grey = 1 in (own.channels, found.channels) and own.dtype == found.dtype
            if not (is_grey and "rgb" in (own.photometric, found.photometric)):
                raise ImageError(
                    f"{row.image}: {own.channels} channels of {own.dtype}, but sections before have"
                    f" {found.channels} of {found.dtype}: a volume has the same in all"
                )
            found = max(own, found, key=lambda kind: kind.channels)
    return found


def _kind(windows: Windows) -> Kind:
    dtype = windows.dtype.newbyteorder("=") if windows.dtype.kind != "b" else np.dtype(np.uint8)
    if windows.is_colour and windows.photometric == "rgb":
        return Kind(3, dtype, "rgb")
    return Kind(windows.channels, dtype, "minisblack", windows.names)


class OpenSections:
    """Files of sections, of which the ones used last stay open.

    Parameters
    ----------
    rows, sources : of the sections, sorted by position.
    most_bytes : that files which are open may hold of their pixels, about; one always is.
    """

    def __init__(
        self, rows: Sequence[Inferred], sources: Sequence[Prepared], most_bytes: int
    ) -> None:
        self._rows, self._sources, self._most_bytes = rows, sources, most_bytes
        self._open: OrderedDict[int, tuple[SectionFile, ExitStack]] = OrderedDict()

    def __enter__(self) -> OpenSections:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._close_oldest()

    def __getitem__(self, section: int) -> SectionFile:
        """ImageError where the file is no longer what `prepare` saw."""
        if section in self._open:
            self._open.move_to_end(section)
            return self._open[section][0]
        row, source = self._rows[section], self._sources[section]
        transform = read_section_transform(row.file(names.SECTION_TO_STACK))
        with ExitStack() as stack:
            windows = stack.enter_context(open_windows(Path(source.image)))
            file = SectionFile.of(source, transform, windows)
            self._open[section] = file, stack.pop_all()
        while len(self._open) > 1 and self._held_bytes() > self._most_bytes:
            self._close_oldest()
        return file

    def _held_bytes(self) -> int:
        return sum(file.lookup.windows.most_held_bytes for file, _ in self._open.values())

    def _close_oldest(self) -> None:
        _, (_, stack) = self._open.popitem(last=False)
        stack.close()


def fill_part(
    part: tuple[slice, slice, slice],
    frame: VolumeFrame,
    stack: Stack,
    section_of: Callable[[int], SectionFile],
    kind: Kind,
    interpolation: str,
) -> np.ndarray:
    """(i, j, k, channels) of the voxels of a part of the grid; 0 where there is no section.

    Parameters
    ----------
    interpolation : as of `reassembly.fill_slab`.
    """
    box, (x, y, z) = stack_mm_of(part, frame.shape, frame.stack_from_voxel)
    value = np.zeros((len(z), kind.channels), np.float32)
    weight = np.zeros(len(z), np.float32)
    nearest_mm = np.full(len(z), np.inf)
    for number, voxels, share in voxels_by_section(stack, z):
        section = section_of(number)
        px = section.places(np.stack([x[voxels], y[voxels]], axis=-1))
        inside = section.lookup.contains(Places.of(px))
        if not inside.any():
            continue
        voxels, share = voxels[inside], share[inside]
        sides = np.eye(2) * (frame.spacing_mm / section.prepared.pixel_size_mm)
        samples = kind.of(section.lookup.sample(Places.of(px[inside]), sides))
        if interpolation == "nearest":
            # a tie goes to the lower section, which comes first
            distance_mm = np.abs(z[voxels] - stack.positions_mm[number])
            nearer = distance_mm < nearest_mm[voxels]
            value[voxels[nearer]], weight[voxels[nearer]] = samples[nearer], 1.0
            nearest_mm[voxels[nearer]] = distance_mm[nearer]
        else:
            # a section without any share still counts where the other file ends
            share = np.maximum(share, 1e-9).astype(np.float32)
            value[voxels] += share[:, None] * samples
            weight[voxels] += share
    value /= np.where(weight > 0, weight, 1.0)[:, None]
    return as_type(value, kind.dtype).reshape(*box, kind.channels)
