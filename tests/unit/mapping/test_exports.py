"""Files that are written all or none, and the plane that fits a section best."""

import errno
import os

import numpy as np
import pytest

from sbr_core.errors import ConfigError, StorageError
from sbr_core.mapping.exports.anchoring import fit_anchoring
from sbr_core.mapping.exports.files import Export, write_export
from sbr_core.mapping.exports.quicknii import section_numbers


def fails(path):
    path.write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("is_there", [False, True])
def test_a_full_disk_leaves_nothing(tmp_path, is_there):
    out = tmp_path / "out"
    if is_there:
        out.mkdir()
        (out / "a.txt").write_text("before")
    export = Export({"a.txt": lambda path: path.write_text("after"), "sub/b.txt": fails})
    with pytest.raises(StorageError, match="cannot be written: no space left"):
        write_export(out, export, force=True)
    assert out.exists() == is_there
    if is_there:
        assert [(p.name, p.read_text()) for p in out.iterdir()] == [("a.txt", "before")]


def test_a_folder_in_the_place_of_a_file_is_not_written_over(tmp_path):
    (tmp_path / "a.txt").mkdir()
    export = Export({"a.txt": lambda path: path.write_text("x")})
    with pytest.raises(ConfigError, match=r"a\.txt exists"):
        write_export(tmp_path, export, force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; expected a folder"):
        write_export(tmp_path / "file", export, force=True)


def test_a_plane_with_right_angles_is_found_exactly():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    u, v, o = 30 * turn[:, 0], -12 * turn[:, 1], rng.normal(size=3)
    points_px = rng.uniform(0, 1, (40, 2)) * [200, 100]
    voxel = o + points_px / [200, 100] @ np.stack([u, v])
    found = fit_anchoring(points_px, voxel, (200.0, 100.0))
    np.testing.assert_allclose(found.numbers(), [*o, *u, *v], atol=1e-9)
    np.testing.assert_allclose(found.from_volume(voxel), points_px, atol=1e-9)
    assert found.off_plane(voxel).max() < 1e-9


def test_no_other_plane_with_right_angles_fits_sheared_points_better():
    rng = np.random.default_rng(1)
    points_px = rng.uniform(0, 1, (60, 2)) * [200, 100]
    edges = np.array([[25.0, 3.0, 1.0], [4.0, -14.0, 2.0]])
    voxel = [5.0, 6.0, 7.0] + points_px / [200, 100] @ edges + rng.normal(0, 0.2, (60, 3))
    found = fit_anchoring(points_px, voxel, (200.0, 100.0))
    assert abs(found.u @ found.v) < 1e-9

    def left(u, v):
        inner = points_px / [200, 100] @ np.stack([u, v])
        return np.sum((voxel - voxel.mean(0) - inner + inner.mean(0)) ** 2)

    least = left(found.u, found.v)
    for _ in range(200):
        angle = rng.normal(0, 0.02, 3)
        cross = np.array(
            [[0, -angle[2], angle[1]], [angle[2], 0, -angle[0]], [-angle[1], angle[0], 0]]
        )
        turn = np.linalg.qr(np.eye(3) + cross)[0]
        turn *= np.sign(np.diag(turn))
        lengths = 1 + rng.normal(0, 0.02, 2)
        assert left(lengths[0] * turn @ found.u, lengths[1] * turn @ found.v) >= least


def test_numbers_of_sections_follow_their_distances():
    assert section_numbers([0.0, 0.4, 1.2, 1.6]) == [1, 2, 4, 5]
    assert section_numbers([0.0, 0.4, 0.97, 1.6]) == [1, 2, 3, 4]  # in no even steps
    assert section_numbers([3.0]) == [1]
