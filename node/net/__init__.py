"""DICOM on the network: the listener and the sender."""
