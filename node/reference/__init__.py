"""The digital reference study and the stand-in PACS, which the node is tested with.

They share no code and no constant with segmentation or scoring, so that an error in one cannot hide in the
other.
"""
