"""The contrastive loss over descriptors of image patches (PatchNCE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_nce(
    queries: Sequence[Tensor], keys: Sequence[Tensor], temperature: float = 0.05
) -> Tensor:
    """Each query should resemble the key of its own place more than those of other places.

    -mean over layers l and places n of log [exp(q_n.k_n / t) / sum_m exp(q_n.k_m / t)]
    (method, equation 5; Park et al. 2020, equation 3, with all negatives from the same image).

    Parameters
    ----------
    queries, keys : one (B, N_l, C) tensor per layer, unit length along C, float32; row n of
        both is the same place. Keys are detached: only the query learns. N_l may differ between
        layers.
    temperature : t.

    Returns
    -------
    scalar >= 0; log N for descriptors that tell nothing. 0 when no layer has a place.
    """
    if len(queries) != len(keys) or any(
        q.shape != k.shape for q, k in zip(queries, keys, strict=True)
    ):
        raise ValueError("queries and keys differ in their number of layers or their shapes")
    total, layers = queries[0].new_zeros(()) if queries else torch.zeros(()), 0
    for query, key in zip(queries, keys, strict=True):
        if query.shape[1] == 0:
            continue
        # divided by t, the rounding of half precision would be as large as the differences
        with torch.autocast(query.device.type, enabled=False):
            logits = query @ key.detach().transpose(1, 2) / temperature
        same_place = torch.arange(query.shape[1], device=query.device).expand(len(query), -1)
        total = total + F.cross_entropy(logits.flatten(0, 1), same_place.flatten())
        layers += 1
    return total / max(layers, 1)
