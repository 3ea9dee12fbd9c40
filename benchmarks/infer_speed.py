"""Seconds per section of `infer`'s networks beside SyN-MI and greedy-NMI, on the same sections.

    python benchmarks/infer_speed.py DATA WORK [--sections 10] [--threads 2] [--weights FILE]
        [--greedy FOLDER]

DATA is the folder of the Allen sections, WORK one for their prepared images. Everything is timed
in memory, without reading or writing files, on the same number of threads and in turns. CPU seconds
of the process stand beside the clock's: they do not count what other jobs of the machine took.

- networks: `predict` of all sections in batches, and `displacement` both ways;
- refinement: `refine` with the options of the preset `cpu`;
- stored: the exact integration and inversion in float64 that `infer` then writes;
- SyN-MI: the method `syn_mi` (ANTs exchanges its warps by temporary files, and they are refined
  to be inverse to each other as those of every method are);
- greedy-NMI: ``-m NMI -n 100x100x40 -s 3.0vox 1.0vox -sv``, if picsl-greedy is there
  (``pip install --target FOLDER picsl-greedy``).

Without `--weights` of a trained SbR the generator has random weights, which take as long.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
GREEDY = "-m NMI -n 100x100x40 -s 3.0vox 1.0vox -sv"


def prepared(data: Path, work: Path, n: int) -> tuple[list[np.ndarray], ...]:
    """T, their masks, S, their masks, of `n` sections evenly spread, at the file's pixel."""
    from sbr_core.artifacts.rows import Plane, read_rows
    from sbr_core.artifacts.training_data import read_pairs
    from sbr_core.config import (
        AlignSectionsOptions,
        IntensityOptions,
        PrepareOptions,
        ResampleOptions,
    )
    from sbr_core.io.manifests import read_manifest
    from sbr_core.stages import align_sections, prepare, resample

    rows = read_manifest(data / "sections.tsv", prealigned=True)
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, n).round().astype(int)]
    pixel_mm = rows[0].pixel_size_mm
    options = PrepareOptions(working_pixel_mm=pixel_mm)
    tables = {name: work / name / "sections.tsv" for name in ("prepare", "resample", "align")}
    folders = {name: {"out_dir": t.parent, "receipt": t} for name, t in tables.items()}
    prepare.run(options, rows=rows, **folders["prepare"], strict=True)
    resample.run(
        ResampleOptions(), rows=rows, working_pixel_mm=pixel_mm, **folders["resample"], strict=True
    )
    align_sections.run(
        AlignSectionsOptions(),
        prepared=tables["prepare"],
        planes=tables["resample"],
        prealigned=True,
        **folders["align"],
        strict=True,
    )
    rule = IntensityOptions()
    stack = read_pairs(read_rows(tables["resample"], Plane), tables["align"], rule).stack
    return tuple(
        list(each.unpadded(group)) for group in (1, 0) for each in (stack.images, stack.masks)
    )


def greedy_step(folder: Path | None, threads: int) -> Callable | None:
    """A function that registers (fixed, moving) by greedy, or None where there is no greedy."""
    if folder is not None:
        sys.path.append(str(folder))
    try:
        greedy = importlib.import_module("picsl_greedy")
    except ImportError:
        return None
    import SimpleITK as sitk

    def register(fixed: np.ndarray, moving: np.ndarray) -> None:
        images = {
            name: sitk.GetImageFromArray(array.astype(np.float64))
            for name, array in (("fixed", fixed), ("moving", moving))
        }
        with open(os.devnull, "w", encoding="utf-8") as silent:
            greedy.Greedy2D().execute(
                f"-V 0 -threads {threads} -i fixed moving {GREEDY} -o warp -oinv inverse",
                out=silent,
                err=silent,
                warp=None,
                inverse=None,
                **images,
            )

    return register


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sections", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="of a trained SbR")
    parser.add_argument("--greedy", type=Path, help="folder with picsl-greedy")
    arguments = parser.parse_args()
    # read when torch and ITK start, so it is set before either is imported
    for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[name] = str(arguments.threads)

    import torch
    from machine import heading

    from sbr_core.algorithms import deformation as flow
    from sbr_core.algorithms.syn import register_syn
    from sbr_core.artifacts.names import SHIPPED_REGISTRAR
    from sbr_core.artifacts.networks import load_method, load_registrar
    from sbr_core.artifacts.training_data import stacked
    from sbr_core.config import resolve
    from sbr_core.functional.masks import dilate
    from sbr_core.functional.warp import upsample_velocity
    from sbr_core.geometry import PlaneGrid
    from sbr_core.nn.generator import Generator, generator_architecture
    from sbr_core.training.predict import predict
    from sbr_core.training.refine import refine

    torch.set_num_threads(arguments.threads)
    config = resolve({"preset": "cpu"}, REPOSITORY / "sbr_core" / "config" / "presets")
    options, syn = config.infer, config.syn_mi
    arrays = prepared(arguments.data, arguments.work, arguments.sections)
    fixed, fixed_masks, moving, moving_masks = (stacked(a) for a in arrays)
    n, shape = len(fixed), tuple(fixed.shape[-2:])
    grid = PlaneGrid(arrays[0][0].shape, 0.25)
    registrar, _ = load_registrar(SHIPPED_REGISTRAR)
    if arguments.weights:
        own, generator, _ = load_method(arguments.weights)
        registrar = own or registrar
    else:
        generator = Generator(**generator_architecture(config.train_sbr)).eval()
    rim = dilate(moving_masks, config.train_sbr.synthesis_rim_px)
    greedy = greedy_step(arguments.greedy, arguments.threads)

    seconds: dict[str, list[tuple[float, float]]] = {}  # by the clock, of the CPU

    def timed(name: str, sections: int, work: Callable[[], object]) -> object:
        began = time.perf_counter(), time.process_time()
        result = work()
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        seconds.setdefault(name, []).append((took[0] / sections, took[1] / sections))
        return result

    @torch.no_grad()
    def networks() -> Sequence[torch.Tensor]:
        batches = zip(*(t.split(options.batch_size) for t in (fixed, moving, rim)), strict=True)
        made = [
            predict(registrar, generator, *batch, symmetric=options.symmetric) for batch in batches
        ]
        for velocity, _ in made:
            registrar.displacement(torch.cat((velocity, -velocity)), shape)
        return [torch.cat(parts) for parts in zip(*made, strict=True)]

    networks()  # warms up
    for i in range(n):
        velocity, synthesised = timed("networks", n, networks)
        one = [t[i : i + 1] for t in (velocity, fixed, synthesised, fixed_masks)]
        refined = timed("refinement", 1, lambda one=one: refine(registrar, *one, options))
        full = upsample_velocity(refined, shape)[0].double().numpy()
        full = np.moveaxis(full, 0, -1)[: grid.shape[0], : grid.shape[1]]
        timed("stored", 1, lambda full=full: flow.integrate(full, grid))
        pair = arrays[0][i], arrays[2][i]
        timed(
            "SyN-MI",
            1,
            lambda pair=pair: register_syn(*pair, grid, syn),
        )
        if greedy is not None:
            timed("greedy-NMI", 1, lambda pair=pair: greedy(*pair))

    median = {
        name: np.array([statistics.median(one) for one in zip(*took, strict=True)])
        for name, took in seconds.items()
    }
    median["networks + refinement"] = median["networks"] + median["refinement"]
    median["networks + refinement + stored"] = median["networks + refinement"] + median["stored"]
    print(heading(f"Time per section of {shape[0]}x{shape[1]} px, {n} sections"))
    made = "trained" if arguments.weights else "random weights (the time is the same)"
    print(f"Generator of width {generator.stem.out_channels}, {made};", end=" ")
    print(f"batches of {options.batch_size}; {options.refine_steps} refinement steps.\n")
    print("| what | s per section | CPU s | SyN-MI takes | CPU | greedy-NMI takes | CPU |")
    print("|---" * 7 + "|")
    for name, took in median.items():
        others = (
            " | ".join(f"{x:.1f} x" for x in median[o] / took) if o in median else "- | -"
            for o in ("SyN-MI", "greedy-NMI")
        )
        print(f"| {name} | {took[0]:.3f} | {took[1]:.3f} | {' | '.join(others)} |")
    if greedy is None:
        print("\ngreedy-NMI was not timed: picsl-greedy is not installed (see --greedy)")


if __name__ == "__main__":
    main()
