"""What is wrong with the sections of a stack, judged by their neighbours.

No section is judged by itself. Each is compared with the sections before and after it, in every
pose it could have been scanned in (turned by any angle, mirrored or not), and how much better
another pose, another place or an undamaged section would fit is measured against how that same
figure spreads over the whole stack. In a stack whose sections are nearly symmetric a mirrored one
hardly fits worse than an upright one; the spread is then larger than the difference, and nothing
is claimed.

==============  =================================================================
`pictures`      sections on a coarse grid, in every pose
`poses`         which of them are mirrored or turned
`order`         which have changed places, lie elsewhere, or are missing
`damage`        which are torn, folded or incomplete
`look`          which are stained otherwise than their neighbours, or less sharp
`evidence`      how a difference becomes a confidence
`findings`      all of these together, in words, with cells of the manifest
==============  =================================================================
"""
