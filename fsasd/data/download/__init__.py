"""DCASE Task 2 editions from Zenodo: download, verify, unpack."""
