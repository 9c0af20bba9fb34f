"""The bar counts optimizer steps, on standard error."""

import io

import lightning as L
import torch
from rich.console import Console
from torch.utils.data import DataLoader, TensorDataset

from fsasd.runtime.progress import StepProgress


class Line(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, index):
        loss = self.weight * batch[0].sum()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def predict_step(self, batch, index):
        return batch[0] * self.weight

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def shown(terminal=True, **options):
    """Return what a training on 4 batches, and a prediction, write."""
    text = io.StringIO()
    bar = StepProgress(Console(file=text, force_terminal=terminal, width=120))
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        callbacks=[bar], **options,
    )  # fmt: skip
    loader = DataLoader(TensorDataset(torch.ones(4)))
    module = Line()
    trainer.fit(module, loader)
    trainer.predict(module, loader)
    return text.getvalue()


def test_steps_are_counted_of_all_that_there_are():
    text = shown(max_steps=6, max_epochs=-1)
    assert "training" in text
    assert "6/6" in text
    assert "train/loss" in text
    assert "generating" in text
    assert "4/4" in text
    assert "Epoch" not in text
    assert "v_num" not in text


def test_a_step_of_several_batches_is_one():
    assert "2/2" in shown(max_steps=2, max_epochs=-1, accumulate_grad_batches=2)


def test_steps_of_epochs_are_counted():
    assert "8/8" in shown(max_epochs=2)


def test_there_is_no_bar_in_a_file():
    assert shown(terminal=False, max_steps=2) == ""


def test_the_bar_is_on_standard_error():
    assert StepProgress().console.stderr
