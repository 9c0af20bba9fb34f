"""Notebooks run; the one on networks of one's own shows what is tested and what the docs say."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_raises(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()


@pytest.fixture
def written():
    """The files that the notebook writes, by name."""
    cells = json.loads((ROOT / "notebooks" / "own_networks.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    return dict(re.findall(r"^%%writefile (\S+)\n(.*)\Z", source, re.DOTALL)[0]
                for source in sources if source.startswith("%%writefile"))  # fmt: skip


def test_the_generator_is_the_one_that_is_tested(written):
    shown = written["my_package/waveform_diffusion.py"]
    assert shown.strip() == (ROOT / "tests" / "waveform_diffusion.py").read_text().strip()
    assert len(shown.splitlines()) < 80


def test_the_representation_is_the_one_of_the_page(written):
    page = (ROOT / "docs" / "how-to" / "detector.md").read_text()
    blocks = dict(re.findall(r"```(?:python|yaml)\n# (my_\S+)\n(.*?)```", page, re.DOTALL))
    for name in ("my_package/bands.py", "my_conf/representation/bands.yaml"):
        assert written[name].strip() == blocks[name].strip()
