"""`Brain`: points between the spaces, against the truth and against what ITK makes of the files."""

import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from mapped_brain import GRID, MIDDLE_MM, SECTIONS, SPACING_MM, TISSUE_MM, tissue_points

import sbr_core
from sbr_core import Brain
from sbr_core.artifacts import names
from sbr_core.artifacts.accuracy import landmark_errors_mm
from sbr_core.errors import ConfigError, ReceiptError
from sbr_core.io.manifests import Landmark
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.mapping.spaces import Space

each_section = pytest.mark.parametrize("section", SECTIONS)
TENTH_PX_MM = 0.1 * GRID.spacing_mm


@pytest.fixture(scope="module")
def brain(truth):
    return Brain(truth.results)


def test_importing_the_package_loads_nothing_heavy():
    script = "import sys, sbr_core; assert 'Brain' in dir(sbr_core); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert loaded.returncode == 0
    assert not {"torch", "numpy", "pandas", "SimpleITK", "pydantic"} & set(loaded.stdout.split())
    script = "import sys; from sbr_core import Brain; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert not {"torch", "ants", "snakemake"} & set(loaded.stdout.split())
    with pytest.raises(AttributeError, match="no attribute 'Brian'"):
        sbr_core.Brian  # noqa: B018


def test_sections_are_in_the_order_of_their_positions(brain):
    assert brain.section_ids == SECTIONS == tuple(section.id for section in brain)
    assert len(brain) == len(SECTIONS) and brain.section("both").shape == (400, 420)


@each_section
def test_a_point_goes_where_it_belongs_and_back(truth, brain, section):
    """Flipped, turned, in a box, of another pixel size: within a tenth of a working pixel."""
    plane_mm = tissue_points(300)
    px, world = truth.px(section, plane_mm), truth.world(section, plane_mm)
    one = brain.section(section)
    mapped = one.to_mri(px)
    assert np.abs(mapped - world).max() < TENTH_PX_MM
    assert np.abs(one.to_plane(px) - plane_mm).max() < TENTH_PX_MM
    back, distance_mm = one.from_mri(mapped)
    assert np.abs(back - px).max() * one.pixel_size_mm < TENTH_PX_MM
    assert np.abs(distance_mm).max() < 1e-9
    seen, distance_mm = one.from_mri(world)
    assert np.abs(seen - px).max() * one.pixel_size_mm < TENTH_PX_MM
    assert np.abs(distance_mm).max() < 1e-9


@each_section
def test_points_are_those_of_itk_through_the_published_files(truth, brain, section):
    px = truth.px(section, tissue_points(40))
    file = names.section_file(truth.results / "sbr", section, names.STACK_TO_SECTION)
    to_plane = sitk.ReadTransform(str(file))
    stack_from_mri = sitk.ReadTransform(str(truth.results / "align" / names.STACK_TRANSFORM))
    mri_from_stack = stack_from_mri.GetInverse()
    one = brain.section(section)
    for point, ours in zip(px, one.to_mri(px), strict=True):
        x, y = to_plane.TransformPoint((point * one.pixel_size_mm).tolist())
        left, posterior, superior = mri_from_stack.TransformPoint((x, y, one.position_mm))
        assert np.allclose(ours, (-left, -posterior, superior), atol=1e-6, rtol=0)


@each_section
def test_landmarks_have_the_errors_of_evaluate(truth, brain, section):
    plane_mm = tissue_points(20)
    rng = np.random.default_rng(1)
    section_mm = truth.px(section, plane_mm) * truth.pixel_size_mm[section]
    mri_mm = truth.world(section, plane_mm) + rng.normal(0, 0.7, (20, 3))
    marks = [Landmark(section, tuple(a), tuple(b)) for a, b in zip(section_mm, mri_mm, strict=True)]
    one = brain.section(section)
    in_plane_mm, through_mm = landmark_errors_mm(
        marks, one.plane_from_section, brain.stack_from_mri, one.position_mm
    )
    ours = brain.to_stack(Space("section", section), section_mm)
    target, distance_mm = brain.from_stack(
        Space("plane", section), brain.to_stack(Space("mri"), mri_mm), within_mm=10.0
    )
    assert np.allclose(np.linalg.norm(ours[:, :2] - target, axis=1), in_plane_mm, atol=1e-9)
    assert np.allclose(distance_mm, through_mm, atol=1e-9)


def test_a_point_reaches_as_far_as_the_volume_is_filled(truth, brain):
    """Half way to the next section unless another distance is asked for; in stack mm."""
    one = brain.section("turned")
    depths_mm = np.array([0.0, 0.49, 0.51, -0.49, -0.51]) * SPACING_MM
    stack_mm = np.column_stack([np.tile(MIDDLE_MM, (5, 1)), one.position_mm + depths_mm])
    points = brain.from_stack(Space("mri"), stack_mm)[0]
    px, distance_mm = one.from_mri(points)
    assert np.isnan(px).all(axis=1).tolist() == [False, False, True, False, True]
    assert np.allclose(distance_mm, np.abs(depths_mm))
    assert not np.isnan(one.from_mri(points, within_mm=1.1)[0]).any()
    assert np.isnan(one.from_mri(points, within_mm=0.1)[0][1:]).all()
    nearest = [brain.section_ids[i] for i in brain.nearest(stack_mm)]
    assert nearest == ["turned", "turned", "both", "turned", "flipped"]
    ends = np.array([[0, 0, -99.0], [0, 0, 99.0]])
    assert brain.nearest(ends).tolist() == [0, len(SECTIONS) - 1]


@each_section
def test_tissue_is_where_prepare_found_it(truth, brain, section):
    angle = np.linspace(0, 2 * np.pi, 50)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    affine = truth.section_from_plane[section]  # the mask is a disc before the deformation
    for radius, expected in ((TISSUE_MM - 0.6, True), (TISSUE_MM + 0.6, False), (500.0, False)):
        flat_mm = MIDDLE_MM + radius * ring
        px = sbr_core.geometry.apply(affine, flat_mm) / truth.pixel_size_mm[section]
        assert (brain.section(section).in_tissue(px) == expected).all()
    assert not brain.section(section).in_tissue([np.nan, np.nan])


def test_any_shape_of_points_is_mapped_as_it_is(truth, brain):
    px = truth.px("plain", tissue_points(6))
    one = brain.section("plain")
    assert one.to_mri(px[0]).shape == (3,)
    assert np.array_equal(one.to_mri(px.reshape(2, 3, 2)).reshape(6, 3), one.to_mri(px))
    assert np.array_equal(one.to_mri(px.tolist())[3], one.to_mri(px[3]))
    with pytest.raises(ValueError, match="shape"):
        one.to_mri([1.0, 2.0, 3.0])


def test_what_is_not_there_is_named(truth, brain, tmp_path):
    with pytest.raises(ConfigError, match=r"no section 'x' in .*; there are plain, flipped"):
        brain.section("x")
    with pytest.raises(ReceiptError, match="no such folder"):
        Brain(tmp_path / "none")
    with pytest.raises(ReceiptError, match="method 'nmi'; there are: sbr"):
        Brain(truth.results, "nmi")
    for text in ("sections", "section:", "mri:3", "stack:plain", "MRI", ""):
        with pytest.raises(ConfigError, match="expected section:ID, plane:ID, stack, mri or atlas"):
            Space.of(text)


@pytest.mark.parametrize(
    ("finished", "taken"),
    [
        ("linear", "linear"),
        ("linear syn_mi", "syn_mi"),
        ("linear syn_mi mind", "mind"),
        ("linear mind nmi cgan", "cgan"),
        ("linear mind sbr sbr_g rot", "sbr"),
        ("linear sbr sbr_g coherent", "coherent"),
    ],
)
def test_the_best_finished_method_is_taken_where_none_is_named(truth, tmp_path, finished, taken):
    """And never one of which there is a folder alone, as while it is made."""
    (tmp_path / "coherent").mkdir()
    for name in ("prepare", *finished.split()):
        rows = read_tsv(truth.results / ("prepare" if name == "prepare" else "sbr") / names.TABLE)
        write_tsv(tmp_path / name / names.TABLE, rows[1], rows[0])
    brain = Brain(tmp_path)
    assert brain.method == taken and len(brain) == len(SECTIONS)
    assert Brain(tmp_path, "linear").method == "linear"


def test_without_any_finished_method_there_is_nothing_to_map_with(tmp_path):
    (tmp_path / "prepare").mkdir()
    with pytest.raises(ReceiptError, match="no finished results of any method"):
        Brain(tmp_path)


def test_a_failed_section_says_why(truth, tmp_path):
    folder = tmp_path / "b"
    for name in ("prepare", "sbr"):
        (folder / name).mkdir(parents=True)
        header, rows = read_tsv(truth.results / name / names.TABLE)
        if name == "sbr":
            rows[1] |= {"status": "failed", "message": "no brain here"}
        write_tsv(folder / name / names.TABLE, rows, header)
    brain = Brain(folder)
    assert "flipped" not in brain.section_ids
    with pytest.raises(ConfigError, match="section 'flipped' of .* failed: no brain here"):
        brain.section("flipped")
    with pytest.raises(ConfigError, match="a prealigned brain has no 3D MRI"):
        brain.section("plain").to_mri([0, 0])
    with pytest.raises(ReceiptError, match="although .* lists it"):
        brain.section("plain").to_plane([0, 0])


def test_transforms_that_are_not_those_that_were_written_are_refused(truth, tmp_path):
    import shutil

    folder = shutil.copytree(truth.results, tmp_path / "b")
    file = names.section_file(folder / "sbr", "plain", names.STACK_TO_SECTION)
    other = names.section_file(folder / "sbr", "turned", names.STACK_TO_SECTION)
    shutil.copy(other, file)
    with pytest.raises(ReceiptError, match="sha256 differs"):
        Brain(folder).section("plain").to_mri([0, 0])
