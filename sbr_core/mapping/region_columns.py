"""Points with the region that each lies in, as columns of their table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.artifacts.accuracy import nearest_elements
from sbr_core.geometry import apply
from sbr_core.io.label_tables import LabelTable
from sbr_core.io.volumes import Volume

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("region_id", "region")


def with_regions(
    parts: Iterable[pd.DataFrame], labels: Volume, names: LabelTable
) -> Iterator[pd.DataFrame]:
    """Parts of a table with columns ``region_id`` and ``region``, of no region 0 and empty.

    Columns that they have with these names become ``from_…``.

    Parameters
    ----------
    parts : with ``x_mm, y_mm, z_mm`` in the world of the labels; NaN are in no region.
    """
    voxel_from_world = np.linalg.inv(labels.world_from_voxel)
    for part in parts:
        world_mm = part[["x_mm", "y_mm", "z_mm"]].to_numpy(float)
        ids = nearest_elements(labels.data, apply(voxel_from_world, world_mm))
        found, numbers = np.unique(ids, return_inverse=True)
        of_found = np.array([names.of(i).name if i else "" for i in found.tolist()], object)
        taken = {name: f"from_{name}" for name in _COLUMNS if name in part}
        replaced = [name for name in taken.values() if name in part]
        renamed = part.drop(columns=replaced).rename(columns=taken)
        yield renamed.assign(region_id=ids, region=of_found[numbers])
