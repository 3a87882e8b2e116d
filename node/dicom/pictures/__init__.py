"""The pages that a radiologist sees beside the images: 1024 x 768, dark, legible without colour."""

from node.dicom.pictures.answer import draw_answer
from node.dicom.pictures.fit import draw_fit
from node.dicom.pictures.nomogram import draw_nomogram
from node.dicom.pictures.overlay import draw_overlay
from node.dicom.pictures.refusal import draw_refusal
from node.dicom.pictures.slices import draw_slices

__all__ = ["draw_answer", "draw_fit", "draw_nomogram", "draw_overlay", "draw_refusal", "draw_slices"]
