"""`sbr export neuroglancer`: where its state puts volumes, and whether Neuroglancer reads it."""

import html
import json
import re
import shutil
from urllib.parse import unquote

import numpy as np
import pytest
from mapped_brain import MappedBrain

from sbr_core.cli import main
from sbr_core.io.colour_volumes import write_colour_volume
from sbr_core.io.volumes import read_volume

AFFINE = np.array([[0, 0.4, 0.1, -20], [-0.5, 0, 0, 18], [0, -0.1, 0.4, -9], [0, 0, 0, 1.0]])


def export(truth: MappedBrain, out, *words) -> dict:
    arguments = ["export", "neuroglancer", "--results", str(truth.results), "--out", str(out)]
    assert main([*arguments, *words]) == 0
    return json.loads((out / "neuroglancer.json").read_text())


@pytest.fixture(scope="module")
def volume(truth: MappedBrain):
    """Folder of volumes: histology, and a small one in colour, turned and not cubic."""
    folder = truth.results / "sbr" / "volume"
    folder.mkdir()
    mri = truth.results / "prepare" / "mri.nii.gz"
    shutil.copyfile(mri, folder / "b_space-mri_histology.nii.gz")
    colour = np.random.default_rng(0).integers(0, 255, (6, 5, 4, 3), dtype=np.uint8)
    write_colour_volume(folder / "b_space-mri_colour.ome.zarr", colour, AFFINE, photometric="rgb")
    return folder


def test_every_layer_lies_where_its_volume_does(truth, volume, tmp_path):
    state = export(truth, tmp_path)
    layers = {layer["name"]: layer for layer in state["layers"]}
    assert list(layers) == ["MRI", "histology", "histology in colour"]
    for name, path in (
        ("MRI", truth.results / "prepare" / "mri.nii.gz"),
        ("histology", volume / "b_space-mri_histology.nii.gz"),
    ):
        url = layers[name]["source"].removesuffix("|gzip:|nifti:")
        assert truth.results / url.removeprefix("http://localhost:9000/") == path
    # the viewer begins in the middle of the MRI
    mri = read_volume(truth.results / "prepare" / "mri.nii.gz")
    middle = (np.array(mri.data.shape) - 1) / 2
    expected = mri.world_from_voxel[:3, :3] @ middle + mri.world_from_voxel[:3, 3]
    np.testing.assert_allclose(state["position"], expected)
    # the OME-Zarr states sides of voxels, the transform the rest: axes c, z, y, x
    source = layers["histology in colour"]["source"]
    assert source["url"].endswith("/sbr/volume/b_space-mri_colour.ome.zarr/|zarr3:")
    stated = json.loads((volume / "b_space-mri_colour.ome.zarr" / "zarr.json").read_text())
    ome = stated["attributes"]["ome"]["multiscales"][0]
    assert [axis["name"] for axis in ome["axes"]] == ["c", "z", "y", "x"]
    scale = ome["datasets"][0]["coordinateTransformations"][0]["scale"]
    matrix = np.array(source["transform"]["matrix"])
    assert list(source["transform"]["outputDimensions"]) == ["c^", "x", "y", "z"]
    for ijk in ((0, 0, 0), (3, 4, 5)):
        of_source = np.array([0.0, *ijk[::-1]]) * scale
        placed = matrix @ [*of_source, 1.0]
        np.testing.assert_allclose(placed[1:], (AFFINE @ [*ijk, 1.0])[:3])


def test_channels_without_colours_are_layers_of_their_own(truth, volume, tmp_path):
    kept = volume / "b_space-mri_colour.ome.zarr"
    rgb = kept.rename(volume / "kept")
    try:
        array = np.random.default_rng(0).integers(0, 4000, (3, 4, 5, 2), dtype=np.uint16)
        write_colour_volume(kept, array, AFFINE, photometric="minisblack", names=("DAPI", "NeuN"))
        layers = export(truth, tmp_path)["layers"][2:]
    finally:
        shutil.rmtree(kept)
        rgb.rename(kept)
    assert [layer["name"] for layer in layers] == ["DAPI", "NeuN"]
    assert [layer["localPosition"] for layer in layers] == [[0], [1]]
    assert all(layer["blend"] == "additive" for layer in layers)


def test_every_stain_group_has_its_layers(truth, volume, tmp_path):
    histology, colour = "b_space-mri_stain-CB_histology.nii.gz", "b_space-mri_stain-pv_colour"
    shutil.copyfile(truth.results / "prepare" / "mri.nii.gz", volume / histology)
    shutil.copytree(volume / "b_space-mri_colour.ome.zarr", volume / f"{colour}.ome.zarr")
    try:
        layers = {layer["name"]: layer for layer in export(truth, tmp_path)["layers"]}
    finally:
        (volume / histology).unlink()
        shutil.rmtree(volume / f"{colour}.ome.zarr")
    own = ["MRI", "histology", "histology in colour"]
    assert list(layers) == [*own, "histology, CB", "histology in colour, pv"]
    assert layers["histology, CB"]["source"].endswith(f"/{histology}|gzip:|nifti:")
    assert f"/{colour}.ome.zarr/" in layers["histology in colour, pv"]["source"]["url"]


def test_the_page_leads_to_the_state(truth, volume, tmp_path):
    words = ("--viewer", "https://viewer.example/v1/", "--server", "http://localhost:8000/")
    state = export(truth, tmp_path, *words)
    page = (tmp_path / "neuroglancer.html").read_text()
    link = html.unescape(re.search('href="([^"]+)"', page)[1])
    address, _, fragment = link.partition("/#!")
    assert address == "https://viewer.example/v1"
    assert json.loads(unquote(fragment)) == state
    assert state["layers"][0]["source"].startswith("http://localhost:8000/prepare/")


def test_neuroglancer_reads_the_state(truth, volume, tmp_path):
    neuroglancer = pytest.importorskip("neuroglancer")
    state = export(truth, tmp_path)
    read = neuroglancer.ViewerState(state)
    assert [layer.name for layer in read.layers] == [layer["name"] for layer in state["layers"]]
    transform = read.layers["histology in colour"].layer.source[0].transform
    assert list(transform.output_dimensions.names) == ["c^", "x", "y", "z"]
    assert transform.matrix.shape == (4, 5)
    assert read.layers["MRI"].visible


@pytest.mark.parametrize("address", ["localhost:9000", "ftp://x", "http://", "http://a:b"])
def test_faults_are_one_line(truth, tmp_path, capsys, address):
    words = ["--results", str(truth.results), "--out", str(tmp_path / "out"), "--server", address]
    assert main(["export", "neuroglancer", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"--server: expected an address, http://… or https://…, found {address!r}" in line
    assert not (tmp_path / "out").exists()
