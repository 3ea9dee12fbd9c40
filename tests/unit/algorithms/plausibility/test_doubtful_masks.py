"""Masks and labels: what is one, and what only looks like one."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sbr_core.algorithms.plausibility import masks

ROWS, COLUMNS = np.mgrid[:120, :160]
BRAIN = ((ROWS - 55) / 45) ** 2 + ((COLUMNS - 58) / 45) ** 2 < 1
BRAIN &= ~((ROWS < 40) & (COLUMNS < 50))  # of no symmetry


def as_jpeg(array: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=75)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize(
    "values",
    [
        BRAIN,
        BRAIN * np.uint8(255),
        np.where(BRAIN, 254 + (ROWS > 60), 0),  # 0, 254 and 255
        np.where(BRAIN, 1 + ROWS // 6 + 20 * (COLUMNS // 8), 0),  # hundreds of regions
        ndimage.gaussian_filter(BRAIN * 255.0, 0.3),  # edges smoothed by a program
        ndimage.uniform_filter(np.pad(BRAIN, 200).astype(float), 3),  # the same of a large one
    ],
)
def test_masks_that_are_right_are_fine(values):
    assert masks.doubt_of_values(values).verdict == "fine"


@pytest.mark.parametrize("top", [1.0, 255.0, 1e-3])
def test_a_map_of_probabilities_is_refused_whatever_its_scale(top):
    probability = np.clip(ndimage.gaussian_filter(BRAIN.astype(float), 12), 1e-4, None) * top
    found = masks.doubt_of_values(probability)
    assert found.verdict == "refused" and "probabilities" in found.words


def test_a_stripped_image_may_be_its_own_mask():
    """All above 0 is the brain, and so it was taken; of an image with air around it is not."""
    rng = np.random.default_rng(0)
    depth = ndimage.distance_transform_edt(BRAIN)
    image = np.clip(0.2 + depth / 45 + rng.normal(0, 0.05, BRAIN.shape), 0.02, None) * BRAIN
    found = masks.doubt_of_values((1000 * image).astype(np.int16))
    assert found.verdict == "doubtful" and "is an image" in found.words
    air = np.abs(rng.normal(0, 0.02, BRAIN.shape)) * (rng.random(BRAIN.shape) > 0.3)
    assert masks.doubt_of_values(image + air).verdict == "refused"


def test_a_mask_as_jpeg_is_said_to_be_one():
    noisy = as_jpeg(BRAIN * np.uint8(255))
    found = masks.doubt_of_values(noisy, is_jpeg=True)
    assert found.verdict != "fine" and "JPEG" in found.words
    assert masks.doubt_of_values(np.zeros((4, 4), np.uint8)).verdict == "refused"


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        (BRAIN, "fine", ""),
        (ndimage.binary_dilation(BRAIN, iterations=6), "fine", ""),
        (ndimage.binary_erosion(BRAIN, iterations=6), "fine", ""),
        (BRAIN & (COLUMNS > 58), "fine", ""),  # the half that is wanted
        (~BRAIN, "refused", "inverted"),
        (~ndimage.binary_dilation(BRAIN, iterations=3), "refused", "inverted"),
        (BRAIN[:, ::-1], "doubtful", "mirrored"),
        (np.ones_like(BRAIN), "doubtful", "everywhere"),
        ((ROWS > 105) & (COLUMNS > 20), "doubtful", "of another one"),
    ],
)
def test_a_mask_is_judged_by_the_tissue_that_is_found(given, verdict, words):
    found = masks.doubt_of_place(given, BRAIN)
    assert found.verdict == verdict and words in found.words


def test_inverted_masks_of_volumes_are_refused():
    brain = np.zeros((20, 24, 22), bool)
    brain[5:15, 6:18, 4:17] = True
    assert masks.doubt_of_place(~brain, brain).verdict == "refused"
    assert masks.doubt_of_place(brain, brain).verdict == "fine"


def test_labels_smeared_by_jpeg_have_stray_ids():
    labels = np.where(BRAIN, 1 + (ROWS > 60) + (COLUMNS > 80), 0).astype(np.uint8)
    assert masks.doubt_of_labels(labels).verdict == "fine"
    assert masks.doubt_of_labels(labels, is_jpeg=True).verdict == "fine", "nothing was smeared"
    # three classes become dozens
    smeared = as_jpeg(labels * 60)
    assert masks.doubt_of_labels(smeared, is_jpeg=True).verdict == "refused"
    assert masks.doubt_of_labels(smeared).verdict == "doubtful", "saved as PNG since"
    many = np.where(BRAIN, 1 + ROWS // 4 * 40 + COLUMNS // 4, 0)
    assert masks.doubt_of_labels(many).verdict == "fine", "an atlas of small regions"
