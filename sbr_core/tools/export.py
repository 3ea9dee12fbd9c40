"""`sbr export`: results in the files of other programs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from sbr_core.errors import ConfigError
from sbr_core.io.label_tables import read_label_table
from sbr_core.mapping.brain import Brain, Section
from sbr_core.mapping.exports.bids import bids
from sbr_core.mapping.exports.files import Export, write_export
from sbr_core.mapping.exports.itk import itk
from sbr_core.mapping.exports.neuroglancer import neuroglancer
from sbr_core.mapping.exports.quicknii import quicknii, target_of
from sbr_core.mapping.jobs import atlas_files

logger = logging.getLogger(__name__)

KINDS = ("quicknii", "itk", "bids", "neuroglancer")
_FLAGS = {
    "quicknii": ("sections", "to", "like", "target", "names", "markers", "atlas_xfm", "brains"),
    "itk": ("sections",),
    "bids": ("sections", "mri_suffix"),
    "neuroglancer": ("server", "viewer"),
}
"""Which flags each kind knows, beside those that all do."""
_MARKERS = 200


def run(
    options: None,
    kind: str,
    *,
    results: Path,
    out: Annotated[Path, "-o"],
    method: str | None = None,
    sections: Sequence[str] | None = None,
    to: str | None = None,
    like: Path | None = None,
    target: str | None = None,
    names: Path | None = None,
    markers: int | None = None,
    mri_suffix: str | None = None,
    server: str | None = None,
    viewer: str | None = None,
    atlas_xfm: Sequence[Path] | None = None,
    brains: Path | None = None,
    force: bool = False,
) -> None:
    """Write results as files of QuickNII, VisuAlign, ANTs, Slicer, Neuroglancer or as BIDS.

    Parameters
    ----------
    kind : quicknii: sections as a series of QuickNII and VisuAlign; itk: 3D composites and fields
        of displacements for ITK, ANTs and 3D Slicer; bids: BIDS derivatives;
        neuroglancer: a view of the volumes where they are.
    results : folder of the brain, results/BRAIN.
    out : folder to write to; what else is in it stays there.
    method : whose transforms, a folder in the results (default: coherent, or else sbr, another
        trained one, mind, syn_mi or linear, whichever is finished).
    sections : ids of those to write (default: all).
    to : quicknii: space of the volume that sections are anchored in, mri or atlas (default: mri).
    like : quicknii: that volume, or one on its grid (default: the MRI).
    target : quicknii: name of an atlas that the programs have already; like is a volume of it.
    names : quicknii: names and colours of like, a volume of labels, which is then written as an
        atlas for VisuAlign.
    markers : quicknii: at most as many per section; 0 for none (default: 200).
    mri_suffix : bids: what the MRI is, as BIDS names it, T1w or T2w for instance (default: unknown,
        and the MRI is left out).
    server : neuroglancer: address that the folder of the results is served at (default:
        http://localhost:9000).
    viewer : neuroglancer: address of a Neuroglancer (default:
        https://neuroglancer-demo.appspot.com).
    atlas_xfm : transforms between the MRI and the template, as of sbr apply.
    brains : the sheet of brains that has them otherwise (default: config/brains.tsv).
    force : write over files of the same names.

    Raises
    ------
    ConfigError
        No such kind, a flag of another kind, an output that exists.
    ImageError
        A volume that cannot be used.
    """
    if kind not in KINDS:
        raise ConfigError(f"expected one of {', '.join(KINDS)}, found {kind!r}")
    given: dict[str, Any] = {"sections": sections}
    given |= {"to": to, "like": like, "target": target, "names": names, "markers": markers}
    given |= {"mri_suffix": mri_suffix, "server": server, "viewer": viewer}
    given |= {"atlas_xfm": atlas_xfm, "brains": brains}
    _check_flags(kind, given)
    brain = Brain(results, method, atlas_files(atlas_xfm, brains, results, to == "atlas"))
    chosen = [section for section in brain if sections is None or section.id in sections]
    for name in sections or ():
        brain.section(name)
    if kind == "itk":
        export = itk(brain, chosen)
    elif kind == "bids":
        export = bids(brain, chosen, mri_suffix)
    elif kind == "neuroglancer":
        export = neuroglancer(brain, server, viewer)
    else:
        export = _quicknii(brain, chosen, given)
    write_export(out, export, force)
    for line in export.told:
        logger.info(f"export: {line}")
    for line in export.doubts:
        logger.warning(f"export: WARNING: {line}")
    logger.info(f"export: {out}: {len(export.files)} files, method {brain.method}")


def _check_flags(kind: str, given: dict[str, Any]) -> None:
    """Refuse flags that a kind does not know."""
    for name, value in given.items():
        if value is not None and name not in _FLAGS[kind]:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag}: {kind} has no use for it")


def _quicknii(brain: Brain, sections: Sequence[Section], given: dict[str, Any]) -> Export:
    space = given["to"] or "mri"
    if space not in ("mri", "atlas"):
        raise ConfigError(f"--to: expected mri or atlas, found {space!r}")
    markers = _MARKERS if given["markers"] is None else given["markers"]
    if markers < 0:
        raise ConfigError(f"--markers: expected 0 or more, found {markers}")
    _ = brain.atlas if space == "atlas" else brain.stack_from_mri
    table = read_label_table(given["names"]) if given["names"] is not None else None
    target = target_of(brain, space, given["like"], given["target"], table)
    return quicknii(sections, target, markers)
