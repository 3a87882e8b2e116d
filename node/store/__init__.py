"""The truth of a node: received bytes and artefacts in files, everything else in SQL."""
