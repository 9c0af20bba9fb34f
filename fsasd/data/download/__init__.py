"""DCASE Task 2 editions from Zenodo: download, verify, unpack."""

from fsasd.data.download.download import download
from fsasd.data.download.transfer import DownloadError

__all__ = ["DownloadError", "download"]
