"""Small repositories of the layout of the paper's: name in it -> content."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], np.uint8)
"""Colour of each class, in their order: none, cerebellar GM, WM, GM, cerebellar WM."""
ALLEN, BIGBRAIN = "data/Allen_labels", "data/BigBrain"
SHAPE = 70, 60


def png(array: np.ndarray) -> bytes:
    """An image as the bytes of a PNG."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def classes(seed: int) -> np.ndarray:
    """A disc of stripes of all five classes, another one for each seed."""
    rows, columns = np.indices(SHAPE)
    inside = (rows - 35) ** 2 + (columns - 30) ** 2 < 25**2
    return np.where(inside, (columns // 3 + seed) % 5, 0).astype(np.uint8)


def allen_files() -> dict[str, bytes]:
    """Four sections, the first without a place in the paper, the last with revised labels."""
    files = {}
    for number in range(1, 5):
        section = f"slice_{number:03d}"
        image = np.where(classes(number) > 0, 100 + 20 * classes(number), 255).astype(np.uint8)
        raw = np.pad(image, 9, constant_values=255)
        for folder, content in (
            ("histo/images", raw),
            ("histo/images_affine", image),
            ("histo/labels", COLOURS[np.pad(classes(number), 9)]),
            ("histo/labels_affine", COLOURS[classes(number)]),
            ("mri/images", 255 - image),
            ("mri/labels", COLOURS[classes(number + 10)]),
        ):
            files[f"{ALLEN}/{folder}/{section}.png"] = png(content)
    for folder, seed in (("histo/labels_affine", 20), ("mri/labels", 21)):
        files[f"{ALLEN}/{folder}/slice_004_new.png"] = png(COLOURS[classes(seed)])
        files[f"{ALLEN}/{folder}/slice_004.cerebellum.png"] = png(COLOURS[classes(4)])
    files[f"{ALLEN}/mri/slice_separation.txt"] = b"0111\n0179\n0247\n0307"
    files[f"{ALLEN}/slice_id.txt"] = (
        b"SLICE_ID,SLICE_NAME,SLICE_ID_MM\n"
        b"002,slice_002,0179\n003,slice_003,0247\n004,slice_004,0307"
    )
    return files


def bigbrain_files() -> dict[str, bytes]:
    """Four sections, the last without an affine and without a place in the paper."""
    files = {}
    for number in (16, 17, 18, 370):
        section = f"slice_{number:03d}"
        mask = np.where(classes(number) > 0, 255 - number % 2, 0).astype(np.uint8)
        image = np.where(mask > 0, 120, 255).astype(np.uint8)
        found = {
            "histo/images": image,
            "mri/images": 255 - image,
            "mri/labels": mask,
            "histo/labels": mask,
            "histo/images_affine": image,
            "histo/labels_affine": mask,
        }
        for folder, content in found.items():
            if number != 370 or folder.endswith("images"):
                files[f"{BIGBRAIN}/{folder}/{section}.png"] = png(content)
        if number != 370:
            files[f"{BIGBRAIN}/histo/affine/{section}.txt"] = (
                b"1 0 0 -3.5\n0 1 0 2\n0 0 1 0\n0 0 0 1\n"
            )
    files[f"{BIGBRAIN}/slice_id.txt"] = (
        b"SLICE_ID,SLICE_NAME\r\n018,slice_018\r\n016,slice_016\r\n017,slice_017"
    )
    return files


def allen_files_of(shared: Path, sections: list[str]) -> dict[str, bytes]:
    """Some sections of the repackaged real data, back in the layout of the paper's repository.

    Labels are there where they are not held out, and in colours, though not the bytes they were.
    """
    folder = shared / "allen"
    files = {}
    lines = ["SLICE_ID,SLICE_NAME,SLICE_ID_MM"]
    for line in (folder / "sections.tsv").read_text().splitlines()[1:]:
        section, position_mm = line.split("\t")[:2]
        if section not in sections:
            continue
        lines.append(f"{section},slice_{section},{round(float(position_mm) / 0.05):04d}")
        name = f"slice_{section}.png"
        for ours, theirs in (
            ("sections_raw", "histo/images"),
            ("sections_linear", "histo/images_affine"),
            ("mri", "mri/images"),
        ):
            files[f"{ALLEN}/{theirs}/{name}"] = (folder / ours / name).read_bytes()
        for ours, theirs in (
            ("labels_sections_linear", "histo/labels_affine"),
            ("labels_mri", "mri/labels"),
        ):
            if not (folder / ours / name).is_file():
                continue
            with Image.open(folder / ours / name) as image:
                files[f"{ALLEN}/{theirs}/{name}"] = png(COLOURS[np.asarray(image)])
    files[f"{ALLEN}/slice_id.txt"] = "\n".join(lines).encode()
    return files


def write_list(path: Path, files: dict[str, bytes]) -> Path:
    """The list of files, as the package has one."""
    lines = ["path\tbytes\tsha256"]
    for name, content in sorted(files.items()):
        lines.append(f"{name}\t{len(content)}\t{hashlib.sha256(content).hexdigest()}")
    path.write_text("\n".join(lines) + "\n")
    return path
