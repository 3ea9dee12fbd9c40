"""The images that a training reads: in memory, or in a file where they are too many for it.

A file is read section by section while the step before is computed, so that memory does not grow
with the number of sections. What is learnt is the same, bit by bit.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sbr_core.errors import StorageError, storage_fault
from sbr_core.training.devices import upload
from sbr_core.training.predict import padding_px

logger = logging.getLogger(__name__)

_SHARE = 0.5
"""Of the machine's memory that images may take, where nothing is said: the rest is for networks,
for what they compute, and for others."""
_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where Linux says how much memory a job may have, as a container or SLURM limits it."""
_BYTES_PER_PIXEL = {1: 8, 2: 24}
"""Most that a pixel takes in memory while a training begins, of stacks of one and of two images."""


@dataclass(frozen=True)
class Place:
    """Where the images of a training may be.

    Attributes
    ----------
    folder : for files.
    memory_bytes : what images may take; where they need more, they go to files.
    """

    folder: Path
    memory_bytes: int

    @classmethod
    def of(cls, folder: Path, memory_gb: float | None, device: torch.device) -> Place:
        """With `memory_gb`, or else half of what the machine, the job, or the card has."""
        if memory_gb is not None:
            return cls(folder, int(memory_gb * 1e9))
        limits = _limits()
        if device.type == "cuda":
            limits.append(torch.cuda.mem_get_info(device)[1])
        return cls(folder, int(_SHARE * min(limits)))


def _limits() -> list[int]:
    """Bytes that the machine has, and that each group of processes this one is in may have."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    lines = _OWN_GROUPS.read_text().splitlines() if _OWN_GROUPS.is_file() else []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        root, name = _GROUPS, "memory.max"
        if controllers:  # of the first version, one tree for each
            root, name = _GROUPS / "memory", "memory.limit_in_bytes"
            if "memory" not in controllers.split(","):
                continue
        folder = root / own.lstrip("/")
        for limit in (at / name for at in (folder, *folder.parents) if at.is_relative_to(root)):
            if limit.is_file() and (text := limit.read_text().strip()).isdigit():
                found.append(int(text))
    return found


IN_MEMORY = Place(Path(), sys.maxsize)
"""However many there are."""


@dataclass(frozen=True)
class Layout:
    """How images lie in a stack.

    Attributes
    ----------
    shape : (rows, columns) that has room for all of them.
    multiple : of which the sides are, once padded.
    """

    shape: tuple[int, int]
    multiple: int

    @property
    def padded(self) -> tuple[int, int]:
        """(rows, columns) with the padding."""
        return tuple(n + -n % self.multiple for n in self.shape)

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the padded image is the image."""
        top, _, left, _ = padding_px(self.shape, self.multiple)
        return slice(top, top + self.shape[0]), slice(left, left + self.shape[1])


class Planes:
    """n times g images of one layout, 0 where nothing was put.

    Parameters
    ----------
    folder : of the file that they are put into, which is gone when the process ends, however it
        ends; None: memory.
    """

    def __init__(
        self, n: int, groups: int, layout: Layout, dtype: type, folder: Path | None = None
    ) -> None:
        self.layout, self.dtype, self.folder = layout, np.dtype(dtype), folder
        self.shape = n, groups, *layout.padded
        self.array: np.ndarray | None = None
        if folder is None:
            self.array = np.zeros(self.shape, dtype)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, as long as this
            self.file.truncate(int(np.prod(self.shape)) * self.dtype.itemsize)

    def put(self, index: int, group: int, image: np.ndarray) -> None:
        """Put an image (rows, columns), not larger than the layout, in its place.

        Raises
        ------
        StorageError
            No room in the folder.
        """
        padded = np.zeros(self.layout.padded, self.dtype)
        padded[self.layout.inside][: image.shape[0], : image.shape[1]] = image
        if self.array is not None:
            self.array[index, group] = padded
            return
        at = (index * self.shape[1] + group) * padded.nbytes
        try:
            left = memoryview(padded).cast("B")
            while left:
                done = os.pwrite(self.file.fileno(), left, at)
                left, at = left[done:], at + done
        except OSError as error:
            why = storage_fault(error, self.folder) or str(error)
            raise StorageError(
                f"{self.folder}: the images of a training cannot be put there: {why}; they take"
                f" {np.prod(self.shape) * self.dtype.itemsize / 1e9:.3g} GB"
            ) from error

    def of(self, index: int) -> np.ndarray:
        """(g, H, W) of a section; StorageError where its file cannot be read."""
        if self.array is not None:
            return self.array[index]
        images = np.empty(self.shape[1:], self.dtype)
        at, left = index * images.nbytes, memoryview(images).cast("B")
        while left:
            done = os.preadv(self.file.fileno(), [left], at)
            if not done:
                raise StorageError(f"{self.folder}: the images of a training are cut off")
            left, at = left[done:], at + done
        return images

    def unpadded(self, group: int) -> Iterator[np.ndarray]:
        """(rows, columns) of each section, without the padding."""
        for index in range(self.shape[0]):
            yield self.of(index)[group][self.layout.inside]

    def first(self, n: int) -> Planes:
        """Of the first n sections only."""
        part = copy.copy(self)
        part.shape = n, *self.shape[1:]
        part.array = None if self.array is None else self.array[:n]
        return part

    def tensor(self, group: int) -> Tensor:
        """(n, 1, H, W), a view; of planes in memory."""
        return torch.from_numpy(self.array)[:, group : group + 1]

    def group(self, group: int) -> Column:
        """One image of each section."""
        return Column(self, group)


@dataclass(frozen=True, eq=False)
class Column:
    """One image of each section, as a tensor (n, 1, H, W) float32 that is never whole in memory."""

    planes: Planes
    at: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        n, _, rows, columns = self.planes.shape
        return n, 1, rows, columns

    def __iter__(self) -> Iterator[np.ndarray]:
        """(H, W) float32, section by section."""
        for index in range(self.shape[0]):
            yield self.planes.of(index)[self.at].astype(np.float32)


@dataclass(frozen=True, eq=False)
class Stack:
    """Images and masks of n sections, g of either for each: planes, or sections and planes.

    Attributes
    ----------
    images : (n, g, H, W) float32, in [0, 1], background 0.
    masks : the same, uint8, 0 or 1.
    """

    images: Planes
    masks: Planes

    @classmethod
    def empty(cls, n: int, groups: int, layout: Layout, place: Place) -> Stack:
        """A stack with nothing in it yet."""
        bytes_ = n * int(np.prod(layout.padded)) * _BYTES_PER_PIXEL[groups]
        folder = place.folder if bytes_ > place.memory_bytes else None
        if folder is not None:
            logger.info(
                f"{n} sections would take {bytes_ / 1e9:.3g} GB of memory, more than"
                f" {place.memory_bytes / 1e9:.3g} GB (memory_gb): they are put into {folder}"
            )
        return cls(*(Planes(n, groups, layout, dtype, folder) for dtype in (np.float32, np.uint8)))

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def in_memory(self) -> bool:
        """Whether all of it is there."""
        return self.images.array is not None

    def put(self, index: int, group: int, image: np.ndarray, mask: np.ndarray) -> None:
        """Put an image and its mask, (rows, columns), in their place."""
        self.images.put(index, group, image)
        self.masks.put(index, group, mask)

    def first(self, n: int) -> Stack:
        """Of the first n sections only."""
        return Stack(self.images.first(n), self.masks.first(n))

    def columns(self) -> list[Column]:
        """Of each group the images, then their masks: what a checkpoint is known by."""
        groups = range(self.images.shape[1])
        return [each.group(g) for g in groups for each in (self.images, self.masks)]


class Reader:
    """Sections of a stack on a device, those of the next step read while this one is computed.

    Parameters
    ----------
    read : makes of a section's number what a step needs of it: tensors of the processor, as many
        and of the same shapes for each.
    """

    def __init__(self, read: Callable[[int], tuple[Tensor, ...]], device: torch.device) -> None:
        self.read, self.device = read, device
        self.threads = ThreadPoolExecutor(1, thread_name_prefix="read")
        self.ahead: dict[int, Future[tuple[Tensor, ...]]] = {}

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Have sections read that are about to be taken; what was read before is forgotten."""
        known, self.ahead = self.ahead, {}
        for index in indices:
            if index not in self.ahead:
                self.ahead[index] = known.get(index) or self.threads.submit(self.read, index)

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        """What is read of sections, stacked along the first axis."""
        self.read_ahead(indices)
        each = [self.ahead[index].result() for index in indices]
        return upload([torch.stack(of_all) for of_all in zip(*each, strict=True)], self.device)


def next_draw(rng: torch.Generator, n: int, times: int) -> list[int]:
    """The numbers below `n` that come next, without drawing them."""
    peek = torch.Generator()
    peek.set_state(rng.get_state())
    return torch.randint(n, (times,), generator=peek).tolist()
