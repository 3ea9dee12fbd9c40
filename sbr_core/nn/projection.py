"""From features of the generator to descriptors on the unit sphere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projection(nn.Module):
    """A two-layer perceptron per layer, then unit length (method, equation 4).

    Parameters
    ----------
    layer_channels : channels of each layer's features, known beforehand.
    out_channels : width of both layers.
    """

    def __init__(self, layer_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, out_channels),
                nn.ReLU(),
                nn.Linear(out_channels, out_channels),
            )
            for channels in layer_channels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Descriptors.

        Parameters
        ----------
        features : per layer, (..., C_l).

        Returns
        -------
        per layer, (..., out_channels) of unit length, float32.
        """
        if len(features) != len(self.mlps):
            raise ValueError(f"expected {len(self.mlps)} layers, found {len(features)}")
        # all layers at once where they can be: many small operations take longer than a few large
        # ones. The first linear layers differ in what they take, the others in their weights
        hidden = [mlp[0](f) for mlp, f in zip(self.mlps, features, strict=True)]
        shapes = [h.shape for h in hidden]
        rows = [shape[:-1].numel() for shape in shapes]
        active = F.relu(torch.cat([h.flatten(0, -2) for h in hidden])).split(rows)
        together = torch.cat([mlp[2](h) for mlp, h in zip(self.mlps, active, strict=True)])
        # neither unit lengths nor what is multiplied afterwards is to be rounded to half precision
        parts = F.normalize(together.float(), dim=-1).split(rows)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
