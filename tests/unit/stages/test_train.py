"""The training stages: from tables of planes to weights that load again, and only as themselves."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sbr_core import cli
from sbr_core.artifacts.names import LINEAR, LINEAR_MASK, MRI, MRI_MASK, SHIPPED_REGISTRAR
from sbr_core.artifacts.networks import PADDING_MULTIPLE, load_method, load_registrar
from sbr_core.artifacts.rows import Affine, Plane, read_rows, write_rows
from sbr_core.artifacts.training_data import read_images, stacked
from sbr_core.config import RegistrarOptions, SbrOptions
from sbr_core.errors import ConfigError, TrainingError, WeightsError
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import sha256_file
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.volumes import write_plane
from sbr_core.io.weights import load_weights, save_weights
from sbr_core.nn.projection import Projection
from sbr_core.stages import train, train_registrar
from sbr_core.training import loop

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from small_training import blobs

REGISTRAR = RegistrarOptions(
    steps=3, batch_size=2, encoder_channels=(4, 8), decoder_channels=(8, 4)
)
SBR = SbrOptions(steps=2, generator_channels=4, residual_blocks=1, n_samples=16)
SPACING_MM = 0.8


def write_stage(folder, image, mask, n=4, empty=(), size=30):
    """A stage's table and planes of n sections named a, b, …; some with an empty mask."""
    planes, masks = (t[:, 0].numpy() for t in blobs(n, size))
    rows = []
    for index in range(n):
        section = "abcdefgh"[index]
        inside = masks[index] * (section not in empty)
        files = {}
        for ending, array in ((image, planes[index]), (mask, inside.astype(np.uint8))):
            path = folder / "sections" / f"{section}{ending}"
            write_plane(path, array, SPACING_MM)
            files[f"sections/{path.name}"] = sha256_file(path)
        common = {"section": section, "position_mm": 3.0 * index, "files": files}
        rows.append(
            Plane(**common, grid=PlaneGrid(planes[index].shape, SPACING_MM))
            if image == MRI
            else Affine(**common, working_mm_from_plane_mm=np.eye(3), moved_mm=0.0)
        )
    write_rows(folder / "sections.tsv", rows)
    return folder / "sections.tsv"


@pytest.fixture
def planes(tmp_path):
    return write_stage(tmp_path / "resample", MRI, MRI_MASK)


@pytest.fixture
def sections(tmp_path):
    return write_stage(tmp_path / "align_sections", LINEAR, LINEAR_MASK)


@pytest.fixture
def registrar(tmp_path, planes):
    out_dir = tmp_path / "registrar"
    train_registrar.run(REGISTRAR, planes=planes, out_dir=out_dir, checkpoint_root=tmp_path / "ck")
    return out_dir / "weights.safetensors"


def run_sbr(tmp_path, planes, sections, registrar, options=SBR):
    train.run(
        options,
        method="sbr",
        planes=planes,
        sections=sections,
        registrar=registrar,
        out_dir=tmp_path / "sbr",
        checkpoint_root=tmp_path / "ck",
    )
    return tmp_path / "sbr" / "weights.safetensors"


def test_weights_state_all_that_inference_needs(tmp_path, planes, sections, registrar):
    weights = run_sbr(tmp_path, planes, sections, registrar)
    for path, load, steps, more in (
        (registrar, load_registrar, 3, {}),
        (
            weights,
            load_method,
            2,
            {
                "synthesis_rim_px": 0,
                "registers": "synthesised",
                "channels": ["grey"],
                "medium_share": 1.0,
                "medium_margin_px": 2,
            },
        ),
    ):
        *networks, header = load(path)
        network = networks[-1]
        assert not network.training
        assert header["preprocessing"] == {
            "working_pixel_mm": pytest.approx(SPACING_MM),
            "low_quantile": 0.01,
            "high_quantile": 0.99,
            "padding_multiple": PADDING_MULTIPLE,
            "polarity": "tissue_bright",
            **more,
        }
        assert header["options"]["steps"] == steps
        assert len(header["fingerprint"]) == 64
        assert [row["step"] for row in read_tsv(path.parent / "loss.tsv")[1]] == [
            str(s) for s in range(1, steps + 1)
        ]
        assert (path.parent / "loss.png").stat().st_size > 1000
        assert path.stat().st_mode == (path.parent / "loss.tsv").stat().st_mode
        assert json.loads((path.parent / "weights.json").read_text())["inputs"]["planes"]["sha256"]
    assert not list((tmp_path / "ck").iterdir())  # nothing left behind


def test_the_same_seed_gives_the_same_weights(tmp_path, planes, registrar):
    first = load_weights(registrar)[0]
    train_registrar.run(
        REGISTRAR, planes=planes, out_dir=tmp_path / "again", checkpoint_root=tmp_path / "ck"
    )
    again = load_weights(tmp_path / "again" / "weights.safetensors")[0]
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_images_that_memory_has_no_room_for_give_the_same_networks(tmp_path, planes, caplog):
    """Read from a file as they are drawn; one section shows nothing and is left out."""
    caplog.set_level("INFO", "sbr_core")
    sections = write_stage(tmp_path / "align_sections", LINEAR, LINEAR_MASK, empty=("c",))
    found = []
    for name, memory_gb in (("memory", None), ("file", 1e-6)):
        folder, more = tmp_path / name, {"memory_gb": memory_gb}
        common = {"planes": planes, "checkpoint_root": folder / "ck"}
        options = REGISTRAR.model_copy(update=more)
        train_registrar.run(options, out_dir=folder / "registrar", **common)
        registrar = folder / "registrar" / "weights.safetensors"
        options = SBR.model_copy(update=more)
        weights = run_sbr(folder, planes, sections, registrar, options)
        found.append([load_weights(path) for path in (registrar, weights)])
        assert ("are put into" in caplog.text) == (name == "file")
        assert not [f for f in (folder / "ck").rglob("*") if f.is_file()]
    for (ours, our_header), (theirs, their_header) in zip(*found, strict=True):
        assert our_header == their_header
        assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())


@pytest.mark.parametrize("command", ["train-registrar", "train", "train-shapes"])
def test_a_terminated_training_goes_on_and_ends_with_the_bits_of_uninterrupted(
    tmp_path, planes, sections, registrar, monkeypatch, capsys, command
):
    narrow = {"encoder_channels": [4, 4], "estimator_channels": [4, 4]}
    options, flags = {
        "train-registrar": (REGISTRAR.model_dump(mode="json"), ["--planes", planes]),
        "train": (
            SBR.model_dump(mode="json") | {"steps": 3},
            [
                *("--method", "sbr", "--planes", planes, "--sections", sections),
                *("--registrar", registrar),
            ],
        ),
        "train-shapes": ({"steps": 3, "batch_size": 1, "sizes_px": [[64, 64]]} | narrow, []),
    }[command]

    def trained(folder, *, terminated=False):
        begun = []

        def learning_rate(done, options):
            begun.append(done)
            if terminated and len(begun) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return usual(done, options)

        usual = loop.learning_rate
        monkeypatch.setattr(loop, "learning_rate", learning_rate)
        folders = ["--out-dir", tmp_path / folder, "--checkpoint-root", tmp_path / folder / "ck"]
        words = [command, "--options", json.dumps(options), *flags, *folders]
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stopped:
            code = stopped.code
        monkeypatch.setattr(loop, "learning_rate", usual)
        return code, len(begun)

    assert trained("whole") == (0, 3)
    assert trained("again", terminated=True) == (143, 2)
    assert "SIGTERM: checkpoint written at step 2 of 3" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["ck"]
    assert trained("again") == (0, 1)
    whole, again = (
        load_weights(tmp_path / folder / "weights.safetensors")[0] for folder in ("whole", "again")
    )
    assert whole and all(torch.equal(again[name], whole[name]) for name in whole)


def finetuned(tmp_path, planes, sections, registrar, start, **changes):
    """Weights trained on from `start`, and what they are written to."""
    options = SBR.model_copy(update={"finetune_steps": 2, "warmup_fraction": 0.5} | changes)
    train.run(
        options,
        method="sbr",
        planes=planes,
        sections=sections,
        registrar=registrar,
        start=start,
        out_dir=tmp_path / "tuned",
        checkpoint_root=tmp_path / "ck",
    )
    return tmp_path / "tuned" / "weights.safetensors"


def test_finetuning_starts_at_the_weights_with_steps_and_rate_of_its_own(
    tmp_path, planes, sections, registrar
):
    start = run_sbr(tmp_path, planes, sections, registrar)
    before = load_weights(start)[0]
    same = load_weights(
        finetuned(tmp_path, planes, sections, registrar, start, finetune_steps=0, seed=9)
    )[0]
    assert all(torch.equal(same[name], before[name]) for name in before)
    path = finetuned(tmp_path, planes, sections, registrar, start, finetune_learning_rate=3e-5)
    tuned, header = load_weights(path)
    losses = read_tsv(path.with_name("loss.tsv"))[1]
    assert [row["step"] for row in losses] == ["1", "2"]
    assert float(losses[0]["learning_rate"]) == 3e-5
    assert header["options"]["warmup_fraction"] == 0
    moved = max(float((tuned[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 1e-4, "two steps of Adam, each of the learning rate at most"
    inputs = json.loads(path.with_suffix(".json").read_text())["inputs"]
    assert inputs["start"]["sha256"] == sha256_file(start)


def test_weights_that_do_not_fit_are_not_trained_on(tmp_path, planes, sections, registrar):
    start = run_sbr(tmp_path, planes, sections, registrar)
    with pytest.raises(WeightsError, match="generator: channels is 4, here 8; write the same"):
        finetuned(tmp_path, planes, sections, registrar, start, generator_channels=8)
    with pytest.raises(WeightsError, match="projection does not fit"):
        finetuned(tmp_path, planes, sections, registrar, start, projection_channels=8)
    with pytest.raises(WeightsError, match="expected weights of a method"):
        finetuned(tmp_path, planes, sections, registrar, registrar)
    tensors, header = load_weights(start)
    for key, other in (("working_pixel_mm", 0.4), ("registers", "section")):
        changed = header | {"preprocessing": header["preprocessing"] | {key: other}}
        save_weights(start, tensors, changed)
        with pytest.raises(WeightsError, match=f"{key} is {other}, here .*; write the same"):
            finetuned(tmp_path, planes, sections, registrar, start)
    assert not (tmp_path / "tuned").exists()


def test_other_stains_and_intensities_are_told_and_trained_on(
    tmp_path, planes, sections, registrar, caplog
):
    start = run_sbr(tmp_path, planes, sections, registrar)
    finetuned(tmp_path, planes, sections, registrar, start)
    assert "was trained" not in caplog.text
    tensors, header = load_weights(start)
    seen = {"low_quantile": 0.05, "channels": ["hematoxylin"]}
    save_weights(
        start,
        tensors,
        header | {"stain": "Nissl", "preprocessing": header["preprocessing"] | seen},
    )
    head, table = read_tsv(sections)
    write_tsv(sections, [row | {"stain": "myelin"} for row in table], head)
    finetuned(tmp_path, planes, sections, registrar, start)
    told = caplog.text
    for line in (
        "was trained with low_quantile 0.05, goes on with 0.01",
        "was trained on stain Nissl, not on myelin",
        "was trained on hematoxylin, not on grey",
    ):
        assert f"{start}: {line}" in told


def test_the_projection_is_kept_for_training_on(tmp_path, planes, sections, registrar):
    tensors, _ = load_weights(run_sbr(tmp_path, planes, sections, registrar))
    _, generator, _ = load_method(tmp_path / "sbr" / "weights.safetensors")
    kept = {k.removeprefix("projection."): v for k, v in tensors.items() if k[0] == "p"}
    torch.manual_seed(SBR.seed)
    projection = Projection(generator.layer_channels, SBR.projection_channels)
    untrained = {key: value.clone() for key, value in projection.state_dict().items()}
    projection.load_state_dict(kept)
    assert projection.state_dict().keys() == kept.keys()
    descriptors = [torch.rand(1, 5, channels) for channels in generator.layer_channels]
    of_kept = projection(descriptors)
    projection.load_state_dict(untrained)
    assert all(
        not torch.equal(one, other)
        for one, other in zip(of_kept, projection(descriptors), strict=True)
    ), "what was kept describes otherwise than what nothing was learnt by"


def test_sections_without_tissue_or_without_a_plane_are_left_out(tmp_path, planes, caplog):
    sections = write_stage(tmp_path / "align_sections", LINEAR, LINEAR_MASK, n=3, empty="b")
    out_dir = tmp_path / "registrar"
    train_registrar.run(REGISTRAR, planes=planes, out_dir=out_dir, checkpoint_root=tmp_path / "ck")
    run_sbr(tmp_path, planes, sections, out_dir / "weights.safetensors")
    assert "section b left out: empty mask" in caplog.text
    used = json.loads((tmp_path / "sbr" / "weights.json").read_text())["sections"]
    assert used == ["a", "c"]


def test_fewer_than_two_planes_is_one_line_and_no_file(tmp_path):
    planes = write_stage(tmp_path / "resample", MRI, MRI_MASK, 2, empty="a")
    with pytest.raises(TrainingError, match="1 usable planes, expected at least 2"):
        train_registrar.run(
            REGISTRAR, planes=planes, out_dir=tmp_path / "out", checkpoint_root=tmp_path / "ck"
        )
    assert not (tmp_path / "out").exists()


def test_a_registrar_of_another_pixel_size_is_refused(tmp_path, planes, sections, registrar):
    tensors, header = load_weights(registrar)
    header["preprocessing"]["working_pixel_mm"] = 0.4
    save_weights(registrar, tensors, header)
    with pytest.raises(WeightsError, match="trained at 0.4 mm"):
        run_sbr(tmp_path, planes, sections, registrar)


def test_networks_have_a_pixel_of_their_own(tmp_path):
    """R and G are trained on coarser images alike, and R's pixel is checked."""
    planes = write_stage(tmp_path / "resample", MRI, MRI_MASK, size=40)
    sections = write_stage(tmp_path / "align_sections", LINEAR, LINEAR_MASK, size=40)
    out_dir = tmp_path / "coarse"
    options = REGISTRAR.model_copy(update={"pixel_factor": 2})
    train_registrar.run(options, planes=planes, out_dir=out_dir, checkpoint_root=tmp_path / "ck")
    coarse = out_dir / "weights.safetensors"
    assert pixel_of(coarse) == pytest.approx(2 * SPACING_MM)
    with pytest.raises(WeightsError, match="by `pixel_factor`"):
        run_sbr(tmp_path, planes, sections, coarse)
    options = SBR.model_copy(update={"pixel_factor": 2})
    weights = run_sbr(tmp_path, planes, sections, coarse, options)
    assert pixel_of(weights) == pytest.approx(2 * SPACING_MM)


def test_networks_whose_pixel_leaves_nothing_of_a_section_are_refused(tmp_path, planes):
    options = REGISTRAR.model_copy(update={"pixel_factor": 2})
    with pytest.raises(TrainingError, match="pixels across at pixel_factor 2.*working_pixel_mm"):
        train_registrar.run(
            options, planes=planes, out_dir=tmp_path / "out", checkpoint_root=tmp_path / "ck"
        )
    assert not (tmp_path / "out").exists()


def pixel_of(weights):
    return load_weights(weights)[1]["preprocessing"]["working_pixel_mm"]


def test_images_of_coarser_pixels_show_the_same_places(planes):
    """Their tissue has the same centre and area, in mm."""
    rows = read_rows(planes, Plane)
    seen = {}
    for factor in (1, 2):
        read = read_images(rows, MRI, MRI_MASK, REGISTRAR.intensity, factor)
        pixel_mm = SPACING_MM * factor
        seen[factor] = np.array(
            [
                (mask.sum() * pixel_mm**2, *(np.argwhere(mask).mean(0) * pixel_mm))
                for mask in read.masks
            ]
        )
    apart = np.abs(seen[2] - seen[1])
    assert apart[:, 1:].max() < 0.25 * SPACING_MM
    assert (apart[:, 0] < 0.1 * seen[1][:, 0]).all()


def test_weights_of_another_kind_or_architecture_are_refused(registrar):
    with pytest.raises(WeightsError, match="expected weights of a method"):
        load_method(registrar)
    tensors, header = load_weights(registrar)
    header["architecture"]["encoder_channels"] = [4, 4]
    save_weights(registrar, tensors, header)
    with pytest.raises(WeightsError, match="does not fit the architecture"):
        load_registrar(registrar)
    header["architecture"] = {"layers": 3}
    save_weights(registrar, tensors, header)
    with pytest.raises(WeightsError, match="does not fit the architecture"):
        load_registrar(registrar)


def test_a_pickle_is_refused(tmp_path, registrar):
    network, _ = load_registrar(registrar)
    torch.save(network.state_dict(), tmp_path / "pickle.safetensors")
    with pytest.raises(WeightsError, match="pickled weights are never opened"):
        load_registrar(tmp_path / "pickle.safetensors")


def test_planes_are_normalised_in_their_masks_and_padded(planes):
    read = read_images(read_rows(planes, Plane), MRI, MRI_MASK, REGISTRAR.intensity)
    assert [row.section for row in read.rows] == ["a", "b", "c", "d"]
    assert not read.left_out
    for image, mask in zip(read.images, read.masks, strict=True):
        assert (image[mask == 0] == 0).all()
        assert image.max() == 1
    assert stacked([*read.images, read.images[0][:-7, 3:]]).shape == (5, 1, 32, 32)


def test_the_shipped_registrar_serves_any_pixel_size_unchanged(tmp_path, planes):
    out_dir = tmp_path / "registrar"
    train_registrar.run(
        REGISTRAR, planes=planes, out_dir=out_dir, checkpoint_root=tmp_path / "ck", source="shipped"
    )
    network, header = load_registrar(out_dir / "weights.safetensors")
    assert header["preprocessing"]["working_pixel_mm"] == SPACING_MM
    assert header["source"] == "shipped"
    shipped, _ = load_registrar(SHIPPED_REGISTRAR)
    for ours, theirs in zip(network.parameters(), shipped.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert len(read_tsv(out_dir / "loss.tsv")[1]) > 1000  # the log of the training behind it
    assert SHIPPED_REGISTRAR.stat().st_size < 5e6


def test_finetuning_starts_from_the_shipped_registrar_with_its_own_steps(tmp_path, planes):
    options = REGISTRAR.model_copy(update={"finetune_steps": 2, "finetune_learning_rate": 1e-5})
    out_dir = tmp_path / "registrar"
    train_registrar.run(
        options, planes=planes, out_dir=out_dir, checkpoint_root=tmp_path / "ck", source="finetune"
    )
    tuned, header = load_registrar(out_dir / "weights.safetensors")
    shipped, shipped_header = load_registrar(SHIPPED_REGISTRAR)
    assert header["architecture"] == shipped_header["architecture"]
    assert len(read_tsv(out_dir / "loss.tsv")[1]) == 2
    moved = [
        float((ours - theirs).abs().max())
        for ours, theirs in zip(tuned.parameters(), shipped.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 1e-4  # two steps of Adam at 1e-5


def test_an_unknown_source_is_refused_by_name(tmp_path, planes):
    with pytest.raises(ConfigError, match="shipped, finetune, train"):
        train_registrar.run(
            REGISTRAR, planes=planes, out_dir=tmp_path, checkpoint_root=tmp_path, source="hub"
        )
