"""The digital reference study and the stand-in PACS: what the node is tested with.

Nothing here is shared with segmentation or scoring, so that an error in one cannot hide in the other.
"""
