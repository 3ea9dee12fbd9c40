"""Fixtures that several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sbr_core.config import DemoOptions


@pytest.fixture(scope="session")
def small_demo_options() -> DemoOptions:
    """A demo brain of eight coarse sections."""
    return DemoOptions(n_sections=8, section_spacing_mm=17.0, pixel_size_mm=1.0, mri_spacing_mm=2.4)


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory: pytest.TempPathFactory, small_demo_options: DemoOptions) -> Path:
    """Folder of that demo brain; read it, do not write to it."""
    from sbr_core.stages import demo

    folder = tmp_path_factory.mktemp("small_demo")
    demo.run(small_demo_options, out_dir=folder)
    return folder
