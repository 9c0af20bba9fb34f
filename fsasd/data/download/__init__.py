"""DCASE Task 2 editions from Zenodo: download, verify, unpack (``fsasd-download``)."""

from fsasd.data.download.command import download
from fsasd.data.download.transfer import DownloadError

__all__ = ["DownloadError", "download"]
