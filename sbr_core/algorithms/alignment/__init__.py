"""The alignment of a stack of sections with an MRI: one 3D similarity, one 2D affine per section.

============================ =====================================================================
`brain_size`                 How large is the brain, and which lengths cannot belong together?
`stack`                      The data: sections, stack, MRI, and what the alignment returns.
`volumes`                    What do stack and MRI look like on one 3D grid?
`poses`                      What does the search compare, and what is a pose?
`outlines`                   Which of all rotations overlap with the MRI's outline, and where?
`correlation_ratio`          How do poses improve by intensity?
`pose_search`                Where may the stack lie? (the search as a whole)
`start`                      Where does the stack lie at first, how long is it, how sure is that?
`volume_fit`                 Which 3D affine fits the stack as a whole, and how well?
`placement`                  Where is the stack now, and what of a 3D affine can sections do?
`section_affine`, `stretch`  Which 2D affine fits one section to its MRI plane?
`section_fits`               Which affines fit all sections, torn ones too?
`stack_fit`                  The fit as a whole: which planes fit all sections together?
============================ =====================================================================

Who explains what, and why nothing drifts
-----------------------------------------
Sections have their own 2D affines, so a stack can be turned, stretched and sheared in its planes
either by the similarity or by all affines together. What no section affine can do is move a point
along z. So the two share the work like this:

* Each round fits the stack volume, built with the current section affines, to the MRI by ANTs
  with a full 3D affine M (stack mm from MRI mm). Its third row maps an MRI point to its position
  in the stack: that row *is* the similarity's third row, direction, scale and offset. The scale is
  therefore set by ``position_mm`` alone.
* What is left of M is, exactly, an in-plane affine that changes linearly with z:
  (x, y) = P (x', y') + c z + d, with P symmetric. It goes to the section affines
  (`placement.split_affine`), so no part of a fit is lost between rounds.
* P symmetric leaves common rotation to the similarity, d its translation: of all
  equivalent splits each round takes this one. At the end the origin moves to the corner of the
  plane grid.
* Rounds of ANTs are followed by joint Gauss-Newton steps on what only the similarity can do
  (offset and scale along z, two tilts), every section's affine answering as if fitted again
  (`stack_fit`). The step at which the sections fit their planes best is the one that is kept.
* A stretch of a single section is drawn to that of its neighbours, robustly
  (`stretch.smooth_stretch`), not to its own last value; it cannot walk away round by round.
* Curvature of the stack (the "banana": translations that bend with z) is anchored by the MRI
  planes, to which every section is fitted; sections are never chained to their neighbours.

Orientation
-----------
`pose_search` finds where the stack lies at low resolution, anywhere or near the anatomical
letters. The nearest letters are a signed permutation, applied to the MRI's world before anything
is refined: ANTs sees two right-handed or two left-handed brains alike and fits only maps of
positive determinant. Nothing here chooses handedness.
"""
