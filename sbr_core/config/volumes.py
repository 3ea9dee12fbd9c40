"""Options of what becomes of the registered sections: volumes, and sections in full."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sbr_core.config.base import Automatic, Count, NonNegative, Options, PixelOfFile, Positive


class ReassembleOptions(Options):
    """The 3D histology volume."""

    LATER = frozenset({"fill"})

    even_sections: Automatic = Field(
        "auto",
        description=(
            "Even the staining from section to section, by one factor each: `auto` where it"
            " clearly jumps, `always`, `never`."
        ),
    )
    spacing_mm: Positive | None = Field(
        None, description="Voxel of the volume, mm; none takes the MRI's grid."
    )
    interpolation: Literal["linear", "nearest"] = Field(
        "linear", description="Between two neighbouring sections: `linear` or `nearest`."
    )
    max_gap_mm: NonNegative = Field(
        0.0, description="How far beyond half the local gap a section still reaches, mm."
    )
    fill: Literal["none", "interpolate"] = Field(
        "none",
        description=(
            "What becomes of the place of missing sections: `none` leaves it empty, `interpolate`"
            " fills gaps of up to three local gaps from the sections on either side, which the"
            " coverage says (-2); labels and colours stay empty there."
        ),
    )
    slab_voxels: Annotated[int, Field(ge=10_000)] = Field(
        2_000_000, description="Voxels computed at a time; bounds the memory."
    )
    cache_mib: Count = Field(
        512, description="Memory for sections that are kept while slabs need them, MiB."
    )
    colour: bool = Field(
        False,
        description=(
            "Write the volume of the sections as they are too, with all channels and colours"
            " (`docs/full_resolution.md`)."
        ),
    )
    format: Literal["nifti", "ome-zarr", "ome-tiff"] = Field(
        "nifti",
        description=(
            "Of that volume: `nifti` (RGB where it is), `ome-zarr` 0.5, sharded, or `ome-tiff`"
            " with a pyramid."
        ),
    )


class RegisteredOptions(Options):
    """Each section on its plane, with all its pixels, channels and colours."""

    pixel_mm: PixelOfFile = Field(
        None,
        description=(
            "Pixel of the images, mm, or `file` for that of each section's file; none writes no"
            " such images (`docs/full_resolution.md`)."
        ),
    )
    format: Literal["ome-tiff", "ome-zarr"] = Field(
        "ome-tiff", description="`ome-tiff`, with a pyramid, or `ome-zarr` 0.5, sharded."
    )
