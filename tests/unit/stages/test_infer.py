"""`infer`: what its files mean, and what it does with sections and weights that do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from skimage.color import rgb_from_hed

from sbr_core import geometry
from sbr_core.algorithms import deformation as flow
from sbr_core.algorithms.sections import prefilter
from sbr_core.algorithms.staining import find_channel
from sbr_core.artifacts import predictors
from sbr_core.artifacts.names import SECTION_TO_STACK, STACK_TO_SECTION, section_file
from sbr_core.artifacts.rows import Affine, Inferred, Prepared, read_rows, write_rows
from sbr_core.artifacts.section_signal import Source, linear_image, read_signal, registered
from sbr_core.config import InferOptions, MindOptions, SynOptions
from sbr_core.errors import ConfigError, ImageError, WeightsError
from sbr_core.io.files import sha256_file
from sbr_core.io.images import read_section, write_png
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.transforms import (
    SectionTransform,
    read_section_transform,
)
from sbr_core.io.volumes import read_plane, write_plane
from sbr_core.io.weights import load_weights, save_weights
from sbr_core.stages import infer


def run(brain, method="linear", **more):
    out_dir = brain.results / method
    receipt = out_dir / "chunks" / "all.tsv"
    infer.run(
        more.pop("options", InferOptions(device="cpu", batch_size=3)),
        method=method,
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        affines=brain.table("align_sections"),
        out_dir=out_dir,
        receipt=receipt,
        **more,
    )
    return out_dir, receipt


def pictures_of(receipt):
    """File name -> array, of every picture a receipt lists."""
    names = [n for row in read_rows(receipt, Inferred) for n in row.files if n.endswith(".nii.gz")]
    return {name: read_plane(receipt.parent.parent / name)[0] for name in names}


def through_itk(brain, row, transform_path, image):
    """The file image on the plane's grid by SimpleITK and the published transform."""
    moving = sitk.GetImageFromArray(image)
    moving.SetSpacing([row.pixel_size_mm] * 2)
    reference = sitk.Image(brain.grid.shape[1], brain.grid.shape[0], sitk.sitkFloat32)
    reference.SetSpacing([brain.grid.spacing_mm] * 2)
    transform = sitk.ReadTransform(str(transform_path))
    return sitk.GetArrayFromImage(sitk.Resample(moving, reference, transform, sitk.sitkLinear, 0.0))


def test_linear_composite_is_the_affine_of_the_file(fake_brain):
    out_dir, receipt = run(fake_brain)
    points = np.random.default_rng(0).uniform(0, 40, size=(20, 2))
    rows = read_rows(receipt, Inferred)
    assert len(rows) == 12
    for row in rows:
        truth = fake_brain.section_mm_from_plane_mm[row.section]
        section, folder = row.section, out_dir / "transforms"
        there = read_section_transform(folder / f"{section}{SECTION_TO_STACK}")
        back = read_section_transform(folder / f"{section}{STACK_TO_SECTION}")
        np.testing.assert_allclose(there.map(points), geometry.apply(truth, points), atol=1e-9)
        np.testing.assert_allclose(back.map(there.map(points)), points, atol=1e-9)
        assert row.disp_max_mm == row.folding_percent == 0


def test_linear_needs_no_torch(fake_brain):
    tables = {n: str(fake_brain.table(n)) for n in ("prepare", "resample", "align_sections")}
    out_dir = fake_brain.results / "linear_alone"
    words = ["infer", "--method", "linear", "--prepared", tables["prepare"]]
    words += ["--planes", tables["resample"], "--affines", tables["align_sections"]]
    words += ["--out-dir", str(out_dir), "--receipt", str(out_dir / "chunks" / "all.tsv")]
    script = (
        "import sys; from sbr_core.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read_rows(out_dir / "chunks" / "all.tsv", Inferred)) == 12


def test_linear_registered_section_is_the_brain_on_the_plane(fake_brain):
    _, receipt = run(fake_brain)
    for row in read_rows(receipt, Inferred):
        found, _ = read_plane(row.file("_registered.nii.gz"))
        truth, _ = read_plane(
            fake_brain.results / "resample" / "sections" / f"{row.section}_mri.nii.gz"
        )
        assert np.abs(found - 0.8 * truth).max() < 0.02  # the prefilter's blur, not half a pixel


def test_sitk_resamples_the_file_to_the_same_registered_section(
    fake_brain, tmp_path, save_networks
):
    out_dir, receipt = run(fake_brain, "sbr", **save_networks(tmp_path))
    prepared = {row.section: row for row in read_rows(fake_brain.table("prepare"), Prepared)}
    for row in read_rows(receipt, Inferred):
        assert row.disp_max_mm > 1.0  # otherwise it shows nothing
        source = prepared[row.section]
        image = prefilter(1.0 - read_section(source.image), 1.0 / source.pixel_size_mm)
        path = section_file(out_dir, row.section, SECTION_TO_STACK)
        theirs = through_itk(fake_brain, source, path, image)
        ours, _ = read_plane(row.file("_registered.nii.gz"))
        assert np.abs(ours - theirs).max() < 1e-4


def test_deformation_there_and_back_through_the_files(fake_brain, tmp_path, save_networks):
    out_dir, receipt = run(fake_brain, "sbr", **save_networks(tmp_path))
    columns, rows = np.meshgrid(np.arange(2, 40), np.arange(2, 34))
    points = np.stack([columns, rows], -1).astype(float)
    for row in read_rows(receipt, Inferred):
        section = row.section
        there = read_section_transform(section_file(out_dir, section, SECTION_TO_STACK))
        back = read_section_transform(section_file(out_dir, section, STACK_TO_SECTION))
        away = np.linalg.norm(back.map(there.map(points)) - points, axis=-1)
        assert away.mean() <= 0.02 and np.percentile(away, 99) <= 0.1
        assert row.inverse_mean_px <= 0.02 and row.inverse_p99_px <= 0.1


def test_nothing_is_random_and_batches_do_not_matter(fake_brain, tmp_path, save_networks):
    networks = save_networks(tmp_path)
    _, receipt = run(fake_brain, "sbr", **networks)
    # ITK's HDF5 files carry the time; the pictures carry nothing but the result
    first = pictures_of(receipt)
    assert len(first) == 3 * 12
    for sidecar in (receipt.parent.parent / "sections").glob("*.json"):
        sidecar.unlink()
    _, receipt = run(fake_brain, "sbr", **networks)
    again = pictures_of(receipt)
    assert all(np.array_equal(again[name], first[name]) for name in first)

    for sidecar in (receipt.parent.parent / "sections").glob("*.json"):
        sidecar.unlink()
    one = InferOptions(device="cpu", batch_size=1)
    _, receipt = run(fake_brain, "sbr", options=one, **networks)
    for name, alone in pictures_of(receipt).items():
        np.testing.assert_allclose(alone, first[name], atol=1e-4)


def test_mind_needs_no_weights_and_no_company(fake_brain):
    options = {"device": "cpu", "refine_steps": 2, "registrar_extent_px": 64}
    _, receipt = run(fake_brain, "mind", options=MindOptions(**options))
    assert any(row.disp_mean_mm > 0.1 for row in read_rows(receipt, Inferred))
    together = pictures_of(receipt)
    for sidecar in (receipt.parent.parent / "sections").glob("*.json"):
        sidecar.unlink()
    _, receipt = run(fake_brain, "mind", options=MindOptions(**options, batch_size=1))
    for name, alone in pictures_of(receipt).items():
        np.testing.assert_allclose(alone, together[name], atol=1e-4)


def test_intact_sections_are_kept_and_networks_not_even_loaded(
    fake_brain, tmp_path, monkeypatch, save_networks
):
    networks = save_networks(tmp_path)
    out_dir, receipt = run(fake_brain, "sbr", **networks)
    before = receipt.read_bytes()

    def refuse(path):
        raise AssertionError("loaded a network although nothing was to do")

    monkeypatch.setattr(predictors, "load_registrar", refuse)
    run(fake_brain, "sbr", **networks)
    assert receipt.read_bytes() == before
    monkeypatch.undo()

    section_file(out_dir, "003", SECTION_TO_STACK).unlink()
    run(fake_brain, "sbr", **networks)
    restored = {r.section: r for r in read_rows(receipt, Inferred)}
    assert len(restored) == 12


def test_weights_of_another_pixel_size_work_on_their_own_grid(brain_maker, tmp_path, save_networks):
    """The same weights on the same brain at another working pixel: the same deformation."""
    networks = save_networks(tmp_path, spacing_mm=1.0)
    fields = {}
    points = np.stack(np.meshgrid(np.arange(8.0, 32.0), np.arange(8.0, 26.0)), -1)
    for spacing_mm in (1.0, 0.75):
        name = f"at{spacing_mm}"
        brain = brain_maker(tmp_path / name, spacing_mm=spacing_mm, n_sections=9)
        out_dir, receipt = run(brain, "sbr", **networks)
        for row in read_rows(receipt, Inferred):
            if row.section in ("005", "006", "007"):
                path = section_file(out_dir, row.section, SECTION_TO_STACK)
                field = read_section_transform(path).steps[0]
                fields[name, row.section] = field.map(points) - points
    assert len(fields) == 6
    for section in ("005", "006", "007"):
        one, other = fields["at1.0", section], fields["at0.75", section]
        assert np.linalg.norm(one, axis=-1).max() > 0.5
        assert np.linalg.norm(one - other, axis=-1).mean() < 0.25


def test_the_answer_of_coarse_networks_is_refined_at_the_pixel_of_the_sections(
    brain_maker, tmp_path, save_networks
):
    """Sections lie where they should, untrained networks move them, refinement moves them back."""
    brain = brain_maker(tmp_path / "fine", spacing_mm=0.5, n_sections=9)
    networks = save_networks(tmp_path, spacing_mm=1.0)
    moved_mm = {}
    for steps in (0, 20):
        options = InferOptions(
            device="cpu",
            refine_steps=steps,
            refine_levels=(2, 1),
            refine_learning_rate=0.3,
            refine_smoothness=1.0,
            refine_mind_weight=100.0,
        )
        _, receipt = run(brain, "sbr", options=options, **networks)
        rows = {row.section: row for row in read_rows(receipt, Inferred)}
        assert rows["004"].grid.spacing_mm == 0.5
        moved_mm[steps] = np.mean([rows[s].disp_mean_mm for s in ("003", "004", "005", "006")])
    assert moved_mm[20] < 0.5 * moved_mm[0]


def test_sections_unlike_those_of_the_training_are_reported(
    brain_maker, tmp_path, save_networks, caplog
):
    brain = brain_maker(tmp_path / "coarse", spacing_mm=2.0, n_sections=3)
    networks = save_networks(tmp_path, spacing_mm=1.0)
    weights = networks["weights"]
    tensors, header = load_weights(weights)
    save_weights(weights, tensors, header | {"stain": "Nissl"})
    rows = read_tsv(brain.table("prepare"))[1]
    write_tsv(brain.table("prepare"), [row | {"stain": "myelin"} for row in rows])
    run(brain, "sbr", **networks)
    log = caplog.text
    assert f"infer: {weights}: was trained on stain Nissl, not on myelin" in log
    assert f"{weights}: was trained at 1 mm, finer than these sections can show" in log


def test_sections_that_failed_before_are_reported_not_lost(fake_brain):
    table = fake_brain.table("prepare")
    header, rows = read_tsv(table)
    rows[2] = {"section": rows[2]["section"], "status": "failed", "message": "no tissue found"}
    write_tsv(table, rows, header)
    _, receipt = run(fake_brain)
    failed = [row for row in read_rows(receipt, Inferred, only_ok=False) if row.status != "ok"]
    assert [(row.section, row.message) for row in failed] == [("002", "no tissue found")]
    with pytest.raises(ImageError, match="no tissue found"):
        run(fake_brain, strict=True)


def test_plane_without_tissue_fails_alone(fake_brain, tmp_path, save_networks):
    mask = fake_brain.results / "resample" / "sections" / "001_mrimask.nii.gz"
    write_plane(mask, np.zeros(fake_brain.grid.shape, np.uint8), 1.0)
    table = fake_brain.table("resample")
    header, rows = read_tsv(table)
    (row,) = [row for row in rows if row["section"] == "001"]
    row["files"] = json.dumps(
        json.loads(row["files"]) | {"sections/001_mrimask.nii.gz": sha256_file(mask)}
    )
    write_tsv(table, rows, header)
    _, receipt = run(fake_brain, "sbr", **save_networks(tmp_path))
    failed = [row for row in read_rows(receipt, Inferred, only_ok=False) if row.status != "ok"]
    assert [row.section for row in failed] == ["001"]
    assert "no tissue" in failed[0].message


def test_trained_method_needs_weights_that_belong_together(fake_brain, tmp_path, save_networks):
    with pytest.raises(ConfigError, match="--weights are needed"):
        run(fake_brain, "sbr")
    with pytest.raises(WeightsError, match="working_pixel_mm"):
        run(fake_brain, "sbr", **save_networks(tmp_path, generator_spacing_mm=0.5))
    networks = save_networks(tmp_path)
    with pytest.raises(WeightsError, match="expected weights of a method"):
        run(fake_brain, "sbr", registrar=networks["registrar"], weights=networks["registrar"])


def test_weights_of_an_older_version_name_what_their_header_lacks(
    fake_brain, tmp_path, save_networks
):
    """And nothing is inferred with a preprocessing that was guessed."""
    networks = save_networks(tmp_path)
    tensors, header = load_weights(networks["weights"])
    for key in ("registers", "medium_share"):
        del header["preprocessing"][key]
    save_weights(networks["weights"], tensors, header)
    missing = (
        r"generator\.safetensors: .* lacks preprocessing\.registers, preprocessing\.medium_share"
    )
    with pytest.raises(WeightsError, match=missing) as caught:
        run(fake_brain, "sbr", **networks)
    assert "\n" not in str(caught.value)
    assert not (fake_brain.results / "sbr").exists()

    networks = save_networks(tmp_path)
    tensors, header = load_weights(networks["registrar"])
    del header["preprocessing"], header["architecture"]
    save_weights(networks["registrar"], tensors, header)
    with pytest.raises(WeightsError, match=r"registrar\.safetensors: .* architecture, preproc"):
        run(fake_brain, "sbr", **networks)


def test_a_registrar_that_serves_any_pixel_size_goes_with_any_weights(
    fake_brain, tmp_path, save_networks
):
    """The one of the package, say, when it is given as it is."""
    _, receipt = run(fake_brain, "sbr", **save_networks(tmp_path))
    before = pictures_of(receipt)
    networks = save_networks(tmp_path)
    tensors, header = load_weights(networks["registrar"])
    header["preprocessing"]["working_pixel_mm"] = None
    save_weights(networks["registrar"], tensors, header)
    _, receipt = run(fake_brain, "sbr", **networks)
    for name, picture in pictures_of(receipt).items():
        assert np.array_equal(picture, before[name]), name


def test_syn_is_published_like_every_other_method(fake_brain):
    """Through the files: folding, there and back, and what ANTs itself makes of the composite."""
    import ants

    options = SynOptions(iterations=(20, 10))
    out_dir, receipt = run(fake_brain, "syn_mi", options=options)
    rows = read_rows(receipt, Inferred)
    assert len(rows) == 12
    prepared = {row.section: row for row in read_rows(fake_brain.table("prepare"), Prepared)}
    for row in rows:
        assert row.folding_percent == 0
        assert row.inverse_mean_px <= 0.02 and row.inverse_p99_px <= 0.1
        assert {name.split("_", 1)[1] for name in row.files if name.endswith(".nii.gz")} == {
            "registered.nii.gz"
        }
    row = max(rows, key=lambda r: r.disp_max_mm)
    section = row.section
    there = section_file(out_dir, section, SECTION_TO_STACK)
    source = prepared[section]
    image = prefilter(1.0 - read_section(source.image), 1.0 / source.pixel_size_mm)
    moving = ants.from_numpy(
        np.ascontiguousarray(image.T, np.float32), spacing=(source.pixel_size_mm,) * 2
    )
    fixed = ants.from_numpy(
        np.zeros(fake_brain.grid.shape[::-1], np.float32), spacing=(fake_brain.grid.spacing_mm,) * 2
    )
    theirs = ants.apply_transforms(fixed, moving, [str(there)]).numpy().T
    ours, _ = read_plane(row.file("_registered.nii.gz"))
    assert np.abs(ours - theirs).max() < 1e-3


def test_another_option_of_syn_computes_its_sections_anew(fake_brain, monkeypatch):
    calls = []

    def still(fixed, moving, grid, options):
        calls.append(options)
        nothing = np.zeros((*grid.shape, 2))
        return flow.Deformation(flow.Canvas(grid, 0), None, nothing, nothing)

    monkeypatch.setattr(predictors, "register_syn", still)
    run(fake_brain, "syn_mi", options=SynOptions())
    run(fake_brain, "syn_mi", options=SynOptions())
    assert len(calls) == 12
    assert calls[0] == SynOptions()
    run(fake_brain, "syn_mi", options=SynOptions(bins=16))
    assert len(calls) == 24


def test_weights_are_shown_the_channel_they_were_trained_on(fake_brain, save_networks):
    """A brain prepared as luminance, by weights that learnt DAB: as if it were prepared as DAB."""
    haematoxylin, _, dab = rgb_from_hed
    header, rows = read_tsv(fake_brain.table("prepare"))
    channels = {}
    for row in rows:
        value = (1 - read_section(row["image"])) / 0.8
        density = 0.5 * value[..., None] * haematoxylin
        density = density + (0.4 * value * (1 - value))[..., None] * dab
        picture = np.round(255 * 0.97 * 10**-density).astype(np.uint8)
        write_png(row["image"], picture)
        row["background"] = "0.97"
        channels[row["section"]] = find_channel(picture / np.float32(255), "dab")[0]
    write_tsv(fake_brain.table("prepare"), rows, header)

    def prepared_as(fields):
        """Prepare's table with other columns, and what align_sections then writes."""
        sources = [
            replace(row, **fields(row.section))
            for row in read_rows(fake_brain.table("prepare"), Prepared)
        ]
        write_rows(fake_brain.table("prepare"), sources)
        table = fake_brain.table("align_sections")
        affines = []
        for source, row in zip(sources, read_rows(table, Affine, verify=False), strict=True):
            affine = source.section_mm_from_working_mm @ row.working_mm_from_plane_mm
            name = f"sections/{row.section}_linear.nii.gz"
            image = registered(source, SectionTransform((affine,)), fake_brain.grid)
            write_plane(table.parent / name, image, fake_brain.grid.spacing_mm)
            files = row.files | {name: sha256_file(table.parent / name)}
            affines.append(replace(row, files=files))
        write_rows(table, affines)

    def synthesised(learnt):
        weights = save_networks(fake_brain.results)
        tensors, header = load_weights(weights["weights"])
        header["preprocessing"]["channels"] = learnt
        save_weights(weights["weights"], tensors, header)
        pictures = pictures_of(run(fake_brain, "sbr", **weights)[1])
        return {n: p for n, p in pictures.items() if n.endswith("_synthesised.nii.gz")}

    prepared_as(lambda section: {})
    by_grey, by_dab = synthesised(["grey"]), synthesised(["dab", "nissl"])
    prepared_as(lambda section: Source(channels[section]).fields())
    native = synthesised(["dab"])
    assert len(native) == 12
    for name, picture in native.items():
        np.testing.assert_allclose(by_dab[name], picture, atol=1e-4)
        assert np.abs(by_grey[name] - picture).max() > 0.003


def test_a_file_much_finer_than_the_plane_lies_on_it_where_it_should(tmp_path):
    """Read at 1 : 5, through an affine with a shift, by `infer` and by `align_sections`."""
    rows, columns = np.mgrid[:403, :521] * 0.05

    def picture(x_mm, y_mm):
        return 0.5 + 0.2 * np.sin(x_mm / 4) + 0.2 * np.cos(y_mm / 3)

    write_png(tmp_path / "fine.png", np.round(picture(columns, rows) * 65535).astype(np.uint16))
    row = Prepared(
        section="1",
        position_mm=0.0,
        pixel_size_mm=0.05,
        working_pixel_mm=1.0,
        file_rows=403,
        file_columns=521,
        polarity="dark_background",
        background=0.0,
        section_mm_from_working_mm=np.eye(3),
        tissue_mm2=1.0,
        image=str(tmp_path / "fine.png"),
    )
    assert read_signal(row, 1.0).step == (5, 5)
    grid = geometry.PlaneGrid((14, 18), 1.0)
    section_from_plane = np.array([[0.96, 0.1, 2.3], [-0.1, 1.02, 3.1], [0, 0, 1]])
    plane_mm = np.stack(np.indices(grid.shape)[::-1], axis=-1)
    section_mm = geometry.apply(section_from_plane, plane_mm)
    wanted = picture(section_mm[..., 0], section_mm[..., 1])
    through = registered(row, SectionTransform((section_from_plane,)), grid)
    linear = linear_image(row, section_from_plane, grid)
    for found in (through, linear):
        np.testing.assert_allclose(
            found, wanted, atol=0.004
        )  # the blur is 0.002, two file pixels 0.012
