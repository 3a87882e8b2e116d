"""The node: DICOM in, report out."""

__version__ = "0.1.0"
