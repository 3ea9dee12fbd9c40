"""Images of many sections: the same to a training in memory and in a file."""

import errno
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pretend_card import CARD, card

from sbr_core.config import NmiwOptions, RegistrarOptions, SbrOptions
from sbr_core.errors import StorageError
from sbr_core.nn.registrar import UNetRegistrar
from sbr_core.training import stacks
from sbr_core.training.checkpoints import fingerprint
from sbr_core.training.pairs import FiledPairs, Pairs, pairs_of
from sbr_core.training.predict import as_batch
from sbr_core.training.registrar import FiledRegistrarTask, RegistrarTask, registrar_task
from sbr_core.training.stacks import Column, Layout, Place, Planes, Stack

LAYOUT = Layout((40, 44), 16)
CPU = torch.device("cpu")


def sections(n, groups, place):
    """A stack of bright discs in discs of tissue, of different sizes; the plane's is wider."""
    rng = np.random.default_rng(0)
    stack = Stack.empty(n, groups, LAYOUT, place)
    y, x = np.indices((38, 44))
    for index in range(n):
        for group in range(groups):
            far = (y - 19) ** 2 + (x - 22 - index) ** 2
            mask = far < (12 + 5 * group) ** 2
            image = (0.5 + 0.5 * (far < 60) * rng.random(mask.shape)) * mask
            stack.put(index, group, image.astype(np.float32), mask)
    return stack


@pytest.fixture
def both(tmp_path):
    """Makes a stack in memory and one in a file."""
    places = Place(tmp_path, 10**9), Place(tmp_path, 10)
    return lambda n, groups: [sections(n, groups, place) for place in places]


def test_images_lie_where_a_batch_has_them(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((3, 40, 44)).astype(np.float32)
    for folder in (None, tmp_path / "made"):
        planes = Planes(3, 1, LAYOUT, np.float32, folder)
        for index, image in enumerate(images):
            planes.put(index, 0, image)
        assert np.array_equal(
            np.stack([planes.of(i)[0] for i in range(3)]), as_batch(images, 16)[:, 0]
        )
        assert np.array_equal(list(planes.unpadded(0)), images)
        few = planes.first(2)
        assert few.shape[0] == 2 and np.array_equal(list(few.unpadded(0)), images[:2])
        planes.put(0, 0, images[0, :20])  # a smaller one begins in the same corner
        assert np.array_equal(next(planes.unpadded(0))[:20], images[0, :20])
    assert not list((tmp_path / "made").iterdir())  # a process that is killed leaves nothing


def test_a_column_is_known_by_what_its_tensor_is(both):
    for stack in both(3, 2):
        columns = stack.columns()
        tensors = [torch.from_numpy(np.stack(list(each)))[:, None] for each in columns]
        assert [tuple(t.shape) for t in tensors] == [each.shape for each in columns]
        assert fingerprint(*columns) == fingerprint(*tensors)
        assert all(isinstance(each, Column) for each in columns)


@pytest.mark.parametrize(
    "options",
    [
        SbrOptions(batch_size=3),
        SbrOptions(batch_size=2, medium_share=0.0, synthesis_rim_px=3),
        NmiwOptions(batch_size=2),
    ],
    ids=["sbr", "medium and a rim", "labels"],
)
def test_the_same_is_drawn_from_a_file(both, options):
    in_memory, in_file = both(6, 2)
    labels = None
    if isinstance(options, NmiwOptions):
        labels = torch.randint(3, (12, 1, *LAYOUT.padded), dtype=torch.int16)
    common = {"options": options, "n_classes": 2 if labels is not None else 0, "device": CPU}
    ours, theirs = (pairs_of(each, labels, **common) for each in (in_memory, in_file))
    assert type(ours) is Pairs and type(theirs) is FiledPairs and len(ours) == len(theirs) == 6
    rngs = [torch.Generator().manual_seed(3) for _ in "12"]
    for _ in range(3):
        drawn = [vars(pairs.draw(rng)) for pairs, rng in zip((ours, theirs), rngs, strict=True)]
        for name, tensor in drawn[0].items():
            assert torch.equal(tensor, drawn[1][name]), name
        theirs.read_ahead(rngs[1])
        assert torch.equal(*(rng.get_state() for rng in rngs))  # nothing is drawn by looking


def test_pairs_of_a_file_come_to_a_card_without_a_wait(both):
    options = SbrOptions(batch_size=2)
    drawn = []
    for device in (CPU, CARD):
        with nullcontext() if device is CPU else card() as seen:
            _, in_file = both(6, 2)
            pairs = pairs_of(in_file, None, options=options, n_classes=0, device=device)
            rng = torch.Generator().manual_seed(0)
            drawn.append({k: t.cpu() for k, t in vars(pairs.draw(rng)).items()})
            if device is CARD:
                seen.clear()
                pairs.draw(rng)
                assert seen.syncs.total() <= 1, dict(seen.syncs)  # the box of the tissue
    for name, tensor in drawn[0].items():
        torch.testing.assert_close(tensor, drawn[1][name])


def test_what_was_read_ahead_is_not_read_again(both):
    _, in_file = both(6, 2)
    pairs = FiledPairs(in_file, None, options=SbrOptions(batch_size=2), n_classes=0, device=CPU)
    read, original = [], pairs.reader.read
    pairs.reader.read = lambda index: read.append(index) or original(index)
    rng = torch.Generator().manual_seed(0)
    pairs.read_ahead(rng)
    for future in list(pairs.reader.ahead.values()):
        future.result()
    seen = list(read)
    pairs.draw(rng)
    assert seen == read and seen
    assert len(pairs.reader.ahead) <= 2  # no more is kept than a step needs


def test_a_registrar_learns_the_same_from_a_file(both):
    options = RegistrarOptions(batch_size=2, mask_dilation_px=3, lncc_window_px=5)
    found = []
    for stack in both(5, 1):
        torch.manual_seed(0)
        network = UNetRegistrar((4, 8), (8, 4))
        task = registrar_task(network, stack, range(5), options, CPU)
        rng = torch.Generator().manual_seed(0)
        losses = []
        for _ in range(2):
            losses.append({k: v.detach() for k, v in task.losses(rng).items()})
            if isinstance(task, FiledRegistrarTask):
                task.read_ahead(rng)
                assert set(task.reader.ahead) <= set(range(5))
        found.append([float(each[k]) for each in losses for k in sorted(each)])
        assert type(task) is (RegistrarTask if stack.in_memory else FiledRegistrarTask)
    assert found[0] == found[1]


def test_a_full_disk_is_told_as_one(tmp_path, monkeypatch):
    planes = Planes(2, 1, LAYOUT, np.float32, tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stacks.os, "pwrite", full)
    with pytest.raises(StorageError, match=r"no space left on device; they take .* GB"):
        planes.put(0, 0, np.zeros((4, 4)))


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/job/step\n", "job/memory.max"),
        ("5:cpu,memory:/job\n3:pids:/other\n", "memory/job/memory.limit_in_bytes"),
    ],
)
def test_what_images_may_take(tmp_path, monkeypatch, line, file):
    """Half of the machine's memory, or of the least that a group of processes may have."""
    assert Place.of(tmp_path, 1.5, CPU).memory_bytes == 1_500_000_000
    groups, limit = tmp_path / "cgroup", tmp_path / "groups" / file
    monkeypatch.setattr(stacks, "_OWN_GROUPS", groups)
    monkeypatch.setattr(stacks, "_GROUPS", tmp_path / "groups")
    whole = Place.of(tmp_path, None, CPU).memory_bytes
    groups.write_text(line)
    limit.parent.mkdir(parents=True)
    limit.write_text("2000000\n")
    assert Place.of(tmp_path, None, CPU).memory_bytes == 1_000_000 < whole
    limit.write_text("max\n")
    assert Place.of(tmp_path, None, CPU).memory_bytes == whole
