"""Histology sections and an MRI of the same brain, registered in 3D by Synth-by-Reg."""

__version__ = "0.1.0"
