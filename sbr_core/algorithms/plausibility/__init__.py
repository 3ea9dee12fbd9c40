"""Whether what a user gave of a brain can belong together: every input judged by every other.

================ =================================================================================
`finding`        What is said of an input, and how sure that is.
`outlines`       What shape has the tissue of a section: its box, its place, sides that were cut?
`masks`          Is a mask one, or inverted, mirrored, a probability map, a photograph of labels?
`heads`          Is an MRI without a mask a brain, or a head?
`lengths`        Which lengths cannot be a brain's, or not those of one brain?
`sizes`          Do pixel sizes, positions and voxels give one brain?
`halves`         Are the sections those of a whole brain, or of a part of what the MRI shows?
`landmarks`      Are points where they are said to be: units, axes, handedness?
`work`           What disk, memory and time will a run take?
================ =================================================================================

Nothing here changes a result. What cannot be right is ``refused``, what is merely unlikely
``doubtful``: thresholds of the first are set so that nothing that can be right is hit.
"""
