"""DICOM in and out: reading CT series, and encoding SEG, SR and Secondary Capture."""
