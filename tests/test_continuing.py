"""A finished training that is trained for more steps."""

import pytest
import torch
from test_fitting import best, data, generator, trainer, weight  # noqa: F401

from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.continuing import take_checkpoints
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.fitting import CHECKPOINTS, finetune
from fsasd.runtime.resuming import read_checkpoint

pytestmark = pytest.mark.slow


class Constant(AudioLDM):
    """A learning rate that does not depend on the last step."""

    def configure_optimizers(self):
        return super().configure_optimizers()["optimizer"]


def train(data, folder, steps):  # noqa: F811
    tuned = Constant(
        "nano", crop_seconds=0.64, learning_rate=1e-2, warmup_steps=0, sampler=Sampler(steps=1)
    )
    run = trainer(folder, [best()], max_steps=steps)
    finetune(tuned, data, run, folder, keep_checkpoints=True)
    return read_checkpoint(folder / CHECKPOINTS / "last.ckpt"), tuned


@pytest.mark.nightly
def test_a_continued_training_is_that_of_all_steps_at_once(data, tmp_path):  # noqa: F811
    """Where the learning rate allows; weights, averages, optimizer and the best checkpoint."""
    whole, best_of_whole = train(data, tmp_path / "whole", 4)
    train(data, tmp_path / "first", 2)
    before = {path: path.read_bytes() for path in (tmp_path / "first").rglob("*.ckpt")}
    for path in before:
        # As in the store.
        path.chmod(0o444)
    (tmp_path / "more").mkdir()
    checkpoints = tmp_path / "more" / CHECKPOINTS
    take_checkpoints(tmp_path / "first" / CHECKPOINTS, checkpoints)
    (state,) = (
        state for state in read_checkpoint(checkpoints / "last.ckpt")["callbacks"].values()
        if "best_model_path" in state
    )  # fmt: skip
    assert state["best_model_path"] == str(checkpoints / "best.ckpt")
    more, best_of_more = train(data, tmp_path / "more", 4)
    assert more["global_step"] == whole["global_step"] == 4
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(more["state_dict"][name], tensor), name
    for one, other in zip(
        whole["optimizer_states"][0]["state"].values(),
        more["optimizer_states"][0]["state"].values(),
        strict=True,
    ):
        assert torch.equal(one["exp_avg"], other["exp_avg"])
    assert torch.equal(weight(best_of_more), weight(best_of_whole))
    assert {path: path.read_bytes() for path in before} == before


def test_a_continued_training_that_was_interrupted_is_not_begun_anew(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "interrupted.ckpt").write_bytes(b"later")
    take_checkpoints(tmp_path / "nowhere", tmp_path / "checkpoints")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["interrupted.ckpt"]


def test_a_training_without_checkpoints_cannot_be_continued(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected the checkpoints .* generator\.checkpoi"):
        take_checkpoints(tmp_path / "key" / CHECKPOINTS, tmp_path / "more")
