"""Where age, ALP and homocysteine come from. Age comes from the DICOM header."""
