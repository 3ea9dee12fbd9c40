"""Names of columns that are nearly right, in tables that people write.

A column of the user's own is allowed in a manifest, so a name that is only nearly one of ours would
be passed over, and what it states would not happen. Such a name is refused with the one that is
meant: another case or separator, a plural, a letter or two, another unit, or a synonym.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from sbr_core.errors import ManifestError

MANIFEST_SYNONYMS = {
    "section": "section_id section_name section_no section_nr section_number slice slice_id slide",
    "image": "img file filename file_name image_file image_path image_name path picture",
    "position_mm": "position pos pos_mm z z_mm ap ap_mm bregma bregma_mm depth depth_mm coordinate"
    " coordinate_mm location location_mm z_position",
    "pixel_size_mm": "pixel_size pixelsize pixel px_size px_mm pixel_mm pixel_spacing"
    " pixel_spacing_mm resolution resolution_mm mpp spacing spacing_mm microns_per_pixel",
    "mask": "tissue_mask section_mask mask_file mask_path mask_image brain_mask",
    "labels": "label label_file labels_file label_path label_image label_map segmentation"
    " segmentations parcellation",
    "flip": "flipped flipping mirror mirrored mirroring reflect reflected reflection flop hflip"
    " vflip flip_lr flip_ud flip_x flip_y fliplr flipud flip_horizontal flip_vertical",
    "rotate_deg": "rotate rotated rotation rotations rotation_angle rot rot_deg angle angle_deg"
    " turn turn_deg turned rotate_degrees rotation_deg rotation_degrees orientation_deg rotate_ccw"
    " rotate_cw",
    "exclude": "excluded exclusion excluding skip skipped drop dropped omit omitted ignore ignored"
    " remove removed discard discarded reject rejected include included including use keep",
    "stain": "staining stained dye stain_name",
    "stain_group": "stain_groups staining_group stain_set stain_series",
    "image_channel": "channel channels channel_name channel_number image_channels",
    "box_px": "box bbox bounding_box boxes crop cropped roi rect rectangle",
    "mri_image": "mri_plane mri_slice mri_section plane_image",
    "mri_mask": "mri_plane_mask plane_mask mri_brain_mask",
    "mri_labels": "mri_plane_labels plane_labels mri_segmentation",
}
"""Column of a manifest -> what others call it."""

SHEET_SYNONYMS = {
    "brain": "brain_id name id subject subject_id sample animal specimen",
    "sections": "manifest section section_table sections_tsv slices histology",
    "mri": "mr mri_file mri_image t1 t1w t2 t2w volume scan image",
    "mri_mask": "mask brain_mask brainmask mri_brain_mask",
    "mri_labels": "labels label label_map labelmap segmentation parcellation atlas",
    "label_names": "label_table lookup_table lut colour_table color_table names label_lut",
    "landmarks": "landmark landmark_file points fiducials",
    "corrections": "correction correction_file corrected fixes",
    "atlas_xfm": "atlas_transform atlas_xfms atlas_warp template_xfm template_transform mni_xfm",
    "orientation": "orient orientations direction axes stack_orientation",
    "weights_from": "weights weight networks_from donor",
    "weights_use": "use_weights weights_mode",
    "prealigned": "aligned pre_aligned registered preregistered prealignment",
    "notes": "note comment comments remark remarks",
}
"""Column of the sheet of brains -> what others call it."""

LANDMARK_SYNONYMS = {
    "section": MANIFEST_SYNONYMS["section"],
    "x_section_mm": "x section_x section_x_mm x_mm",
    "y_section_mm": "y section_y section_y_mm y_mm",
    "mri_x_mm": "mri_x x_mri x_mri_mm x_mm_mri r",
    "mri_y_mm": "mri_y y_mri y_mri_mm y_mm_mri a",
    "mri_z_mm": "mri_z z_mri z_mri_mm z_mm_mri z z_mm s",
    "x_plane_mm": "plane_x plane_x_mm x_plane",
    "y_plane_mm": "plane_y plane_y_mm y_plane",
}
"""Column of a table of landmarks -> what others call it."""

CORRECTION_SYNONYMS = LANDMARK_SYNONYMS | {
    "kind": "kinds type what",
    "value": "values verdict",
}
"""Column of a table of corrections -> what others call it."""

FINDING_SYNONYMS = {
    "section": MANIFEST_SYNONYMS["section"],
    "confidence": "certainty probability score",
    "suggestion": "suggested suggestions edit proposal",
}
"""Column of the doctor's findings -> what others call it."""

_OWN = (
    *("strain", "strains", "session", "sessions", "selection", "sector", "brain", "task", "tasks"),
    *("mark", "marks", "mass", "clip", "slip", "level", "levels", "page", "stage", "usage"),
    *("film", "grain", "station"),
)
"""Words of their own that are a letter or two from a column: a mouse has a strain."""
_LENGTH_UNITS = ("mm", "um", "nm", "cm", "px", "micron", "microns", "micrometer", "in", "inch")
_LONG = 6
"""Names that both have so many letters may differ in two, shorter ones in one."""
_SLIP = 2
"""Letters that are wrong at most in what is taken for a slip of the pen."""


def check_columns(
    path: Path | str,
    header: Collection[str],
    known: Collection[str],
    synonyms: Mapping[str, str],
    *,
    own_allowed: bool = True,
) -> None:
    """Refuse a column whose name is nearly that of a known one.

    Parameters
    ----------
    known : names of the columns of such a table.
    synonyms : a known name -> others for it, separated by blanks. One that stands beside the
        column it would mean is the user's own. A name that is not here may be missed by any other.
    own_allowed : whether the table may have columns that nothing reads.

    Raises
    ------
    ManifestError
        Naming the column and the one that is meant, where there is one.
    """
    for column in header:
        if column in known:
            continue
        meant = _meant(column, known, synonyms)
        what = f"column {column!r}" if own_allowed else f"unknown column {column!r}"
        is_case = meant is not None and _plain(meant) == _plain(column)
        if meant is not None and (meant not in header or is_case or not own_allowed):
            own = " (a column of your own needs a name less like it)" if own_allowed else ""
            raise ManifestError(
                f"{path}: {what}: expected {_with_meaning(meant)}, if that is meant{own}"
            )
        if not own_allowed:
            what = what if column else "a column without a name has values"
            raise ManifestError(f"{path}: {what}; known are {', '.join(known)}")


def _with_meaning(column: str) -> str:
    """A name in quotes, with its unit in words where it has one."""
    units = {"mm": " in millimetres", "deg": " in degrees"}
    return repr(column) + units.get(column.rpartition("_")[2], "")


def _meant(column: str, known: Collection[str], synonyms: Mapping[str, str]) -> str | None:
    """The known column that a name is nearly; None where it is a word of its own."""
    plain = _plain(column)
    if not plain:
        return None
    if plain in _OWN or plain[-1].isdigit():  # a second stain, say
        return None
    read = [name for name in known if name in synonyms]
    for name in read:
        others = {_plain(name), *(_plain(word) for word in synonyms[name].split())}
        if plain in others or _without_unit(column) in {_without_unit(name), *others}:
            return name
        if any(len(o) >= _LONG and _wrong_letters(plain, o) <= 1 for o in others):
            return name  # a synonym mistyped, or in the plural
    # a further word makes another name, as `labels_by` is
    alike = [name for name in read if _n_words(column) <= _n_words(name)]
    wrong = {name: _wrong_letters(plain, _plain(name)) for name in alike}
    nearest = min(wrong, key=wrong.__getitem__, default=None)
    if nearest is None:
        return None
    allowed = 2 if min(len(plain), len(_plain(nearest))) >= _LONG else 1
    return nearest if wrong[nearest] <= allowed else None


def _n_words(name: str) -> int:
    return len(re.findall(r"[^\W_]+", name))


def _plain(name: str) -> str:
    """Small letters and digits of a name alone: ``Pixel-size (µm)`` as ``pixelsizeum``."""
    name = unicodedata.normalize("NFKD", name.casefold()).replace("\N{GREEK SMALL LETTER MU}", "u")
    return re.sub(r"[^a-z0-9]", "", name)


def _without_unit(name: str) -> str:
    """`_plain` of a name without the unit of length at its end, if it has one."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"[µμ]", "u", name.casefold()).strip(" ()[]._-"))
    if len(words) > 1 and words[-1] in _LENGTH_UNITS:
        words = words[:-1]
    return _plain("".join(words))


def _wrong_letters(one: str, other: str) -> int:
    """Letters added, left out, exchanged or swapped with a neighbour between two words.

    The distance of Damerau and Levenshtein (Damerau 1964), each letter swapped at most once; of
    words that differ more in length than a slip of the pen does, that difference alone.
    """
    if abs(len(one) - len(other)) > _SLIP:
        return abs(len(one) - len(other))
    before, last = [], list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
