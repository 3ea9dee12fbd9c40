"""Simulated brains whose truth is known: the demo, and pairs made of a user's own brain.

====================== ==========================================================================
`demo_rows`            Which sections does the demo have? (cheap, for planning)
`anatomy`              What is the demo's brain made of?
`frames`               How do its stack and its anatomy lie in the world of its MRI?
`mri`                  What does its MRI look like?
`slides`               How does a section come to lie on its slide?
`demo_sections`        What does it look like there?
`truth`                Where does a point of a section belong?
`swirls`               Deformations that are known exactly, and their inverse.
`roughness`            How far does tissue move at which scale, in reality and here?
`variation`            How does a section's anatomy differ from its plane's?
`waves`                Smooth random fields.
`damage`               What tissue is lost, and how uneven is the stain?
`pairs`                How is a plane of a user's own MRI bent into a section?
====================== ==========================================================================

The demo's anatomy is the MNI152 average (T1, grey and white matter maps). Three frames are tied to
it: the world of the MRI, a left-handed stack that has shrunk and is turned against the MRI, and per
section a slide on which the tissue came to lie bent, turned, stretched and cut to its own canvas::

    section mm --affine--> flat mm --swirls--> plane mm --position--> stack mm --similarity--> world

Nothing here is shared with the random fields the networks are trained on. The demo's staining
depends on where a point lies between the pial surface and the white matter, on smooth random fields
and on noise, never on the intensity of the MRI.
"""
