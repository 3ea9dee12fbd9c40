"""Work on arrays with numpy, ANTs and SimpleITK: masks, sampling, alignment, reassembly."""
