"""`sbr apply` on a disk that fills: one line, exit code 2, and nothing half-written."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from mapped_brain import make_mapped_brain

_MOST_BYTES = 20_000


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_mapped_brain(tmp_path_factory.mktemp("mapped") / "b").results


def cells(path):
    path.write_text("x_px,y_px\n" + "50.0,60.0\n" * 2000)


def shapes(path):
    ring = [[float(i), 20.0] for i in range(10, 90)] + [[50.0, 90.0], [10.0, 20.0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {}}
    path.write_text(json.dumps([feature] * 50))


def image(path):
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (208, 248), np.uint8))


@pytest.mark.parametrize(
    ("make", "given", "out"),
    [
        (cells, "in.csv", "out.csv"),
        (shapes, "in.geojson", "out.geojson"),
        (image, "in.tif", "o.tif"),
    ],
)
def test_nothing_half_written_is_left_on_a_full_disk(results, tmp_path, make, given, out):
    make(tmp_path / given)
    way = ["--results", results, "--from", "section:plain", "--to", "plane:plain"]
    # -B: Python would leave its own half-written bytecode in the package, for all that follow
    words = [sys.executable, "-B", "-m", "sbr_core", "apply", given, *way, "--out", f"new/{out}"]
    limit = (_MOST_BYTES, resource.RLIM_INFINITY)
    done = subprocess.run(
        [*map(str, words), "--pixel-mm", "0.2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "file too large" in done.stderr
    assert not [*(tmp_path / "new").glob("*")]
