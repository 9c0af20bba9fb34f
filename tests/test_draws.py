"""Sampling of training clips: the same in any number of processes, and after an interruption."""

import pickle
from collections import Counter
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.draws import BalancedDraws, Draw, InOrder, process_batch

pytestmark = pytest.mark.slow

WEIGHTS = st.lists(st.floats(0.1, 10), min_size=1, max_size=40)


@given(weights=WEIGHTS, batch=st.integers(1, 8), ranks=st.integers(1, 5), epochs=st.integers(1, 3))
def test_processes_share_what_one_would_draw(weights, batch, ranks, epochs):
    size = batch * ranks
    alone = BalancedDraws(weights, size, seed=3)
    shared = [BalancedDraws(weights, size, ranks=ranks, rank=r, seed=3) for r in range(ranks)]
    for _ in range(epochs):
        together = list(alone)
        parts = [list(draws) for draws in shared]
        for i in range(alone.batches):
            of_all = [draw for part in parts for draw in part[i * batch : (i + 1) * batch]]
            assert of_all == together[i * size : (i + 1) * size]


@pytest.mark.parametrize(
    ("batch", "processes", "accumulate", "expected"),
    [(16, 1, 1, 16), (16, 4, 2, 2), (1, 1, 1, 1)],
)
def test_a_process_has_an_even_share_of_a_batch(batch, processes, accumulate, expected):
    assert process_batch(batch, processes, accumulate) == expected


@pytest.mark.parametrize(
    ("batch", "processes", "accumulate", "message"),
    [
        (16, 3, 1, "multiple of 3, found 16. .* 3 processes with 1 accum.* set it to 15 or 18"),
        (16, 2, 3, "multiple of 6, found 16. .* 2 processes with 3 accum.* set it to 12 or 18"),
        (2, 8, 1, "multiple of 8, found 2. .* set it to 8$"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(batch, processes, accumulate, message):
    with pytest.raises(ValueError, match=rf"data\.batch_size: expected a {message}"):
        process_batch(batch, processes, accumulate)
    with pytest.raises(ValueError, match=message):
        BalancedDraws([1.0], batch, ranks=processes, accumulate=accumulate)


@given(weights=WEIGHTS, batch=st.integers(1, 8))
def test_each_clip_is_drawn_as_often_as_it_is_due(weights, batch):
    draws = BalancedDraws(weights, batch)
    due = np.array(weights) / sum(weights) * len(draws)
    counts = Counter(draw.clip for draw in draws)
    for clip, expected in enumerate(due):
        assert np.floor(expected - 1e-6) <= counts[clip] <= np.ceil(expected + 1e-6)


def test_with_equal_weights_no_clip_is_left_out_and_none_comes_twice_but_to_fill_up():
    counts = Counter(draw.clip for draw in BalancedDraws([1.0] * 10, 4))
    assert sorted(counts.values()) == [1] * 8 + [2] * 2


def test_every_hearing_has_a_seed_of_its_own():
    draws = BalancedDraws([1.0] * 50, 10)
    seeds = [draw.seed for _ in range(4) for draw in draws]
    assert len(set(seeds)) == 200


@given(weights=WEIGHTS, heard=st.integers(0, 12), epoch=st.integers(0, 2))
def test_a_resumed_epoch_goes_on_with_the_next_batch(weights, heard, epoch):
    whole = BalancedDraws(weights, 3)
    before = epoch * whole.batches
    for _ in range(epoch + 1):
        draws = list(whole)
    heard = min(heard, whole.batches - 1)
    rest = BalancedDraws(weights, 3, batches_done=lambda: before + heard)
    assert list(rest) == draws[3 * heard :]
    ended = BalancedDraws(weights, 3, batches_done=lambda: before + whole.batches)
    assert list(ended) == list(whole)


@given(count=st.integers(1, 30), ranks=st.integers(1, 4))
def test_validation_hears_each_clip_and_each_process_as_many(count, ranks):
    shares = [list(InOrder(count, ranks=ranks, rank=rank)) for rank in range(ranks)]
    heard = [draw.clip for share in shares for draw in share]
    assert set(heard) == set(range(count))
    assert len(heard) < count + ranks
    assert {len(share) for share in shares} == {len(InOrder(count, ranks=ranks))}


def test_a_draw_is_an_index_that_knows_its_seed():
    draw = Draw(1, 7)
    assert pickle.loads(pickle.dumps([draw])) == [draw]
    assert (draw, draw.clip, draw.seed) == (1, 1, 7)
    assert draw != Draw(1, 8)
    assert "abc"[draw] == "b"
    assert np.arange(3)[draw] == torch.arange(3)[draw] == 1
    assert {1: "b"}[draw] == "b"


# In Lightning's hands


class Heard(Dataset):
    def __init__(self, clips, captions, train):
        self.count = len(clips)

    def __len__(self):
        return self.count

    def __getitem__(self, draw):
        return draw.seed


class Listener(L.LightningModule):
    """Remembers what it was trained on."""

    examples = Heard

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.heard = []

    def training_step(self, batch, batch_idx):
        self.heard.append(batch.tolist())
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Stop(L.Callback):
    """Saves a checkpoint where callbacks do, and ends the run."""

    def __init__(self, step, hook, path, accumulate=1):
        self.step, self.path, self.accumulate = step, path, accumulate
        setattr(self, hook, self.stop)

    def stop(self, trainer, *_):
        if trainer.global_step >= self.step and not self.path.is_file():
            trainer.save_checkpoint(self.path)
            raise StopRunError


class StopRunError(Exception):
    pass


def fit(module, data, folder, callbacks=(), ckpt_path=None, **options):
    options = {"max_steps": 12, "max_epochs": -1, "val_check_interval": 3, **options}
    trainer = L.Trainer(
        accelerator="cpu", devices=1, check_val_every_n_epoch=None, num_sanity_val_steps=0,
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)


HOOKS = ["on_train_batch_end", "on_validation_end", "on_train_epoch_end"]
"""Where callbacks save checkpoints."""
TRIED = [
    *((hook, 0) for hook in HOOKS), ("on_train_batch_end", 1),
    *(pytest.param(hook, 1, marks=pytest.mark.nightly) for hook in HOOKS[1:]),
]  # fmt: skip


@pytest.mark.parametrize(("hook", "workers"), TRIED)
@pytest.mark.parametrize("options", [{}, {"max_epochs": 3, "max_steps": -1}])
def test_no_example_is_heard_twice_or_skipped_by_a_resumed_run(
    factory_clips, tmp_path, hook, options, workers
):
    """16 clips in batches of 3: six batches an epoch; also saved at an epoch's last batch."""
    clips = factory_clips.where(machine="bearing", split="train")

    def data():
        return FirstShotDataModule(clips, batch_size=3, val_share=0.1, num_workers=workers)

    whole = Listener()
    fit(whole, data(), tmp_path, **options)
    assert len(whole.heard) == len({tuple(batch) for batch in whole.heard})
    for step in (1, 5, 7) if not workers else (7,):
        first, second, path = Listener(), Listener(), tmp_path / f"{step}.ckpt"
        with pytest.raises(StopRunError):
            fit(first, data(), tmp_path, [Stop(step, hook, path)], **options)
        assert len(first.heard) < len(whole.heard)
        fit(second, data(), tmp_path, ckpt_path=path, **options)
        assert first.heard + second.heard == whole.heard


@given(weights=WEIGHTS, batch=st.integers(1, 4), times=st.integers(1, 4))
def test_batches_that_accumulate_share_what_one_would_draw(weights, batch, times):
    alone = BalancedDraws(weights, batch * times, seed=3)
    divided = BalancedDraws(weights, batch * times, accumulate=times, seed=3)
    assert list(divided) == list(alone)
    assert divided.batches == times * alone.batches


class Validations(L.Callback):
    """The steps at which validation ran."""

    def __init__(self, steps):
        self.steps = steps

    def on_validation_start(self, trainer, *_):
        self.steps.append(trainer.global_step)


STEP = 4
"""Examples, in batches of 4, 2 or 1."""


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    ("before", "after"),
    [(1, 2), (4, 1), *(pytest.param(2, after, marks=pytest.mark.nightly) for after in (1, 4))],
)
def test_a_run_that_is_resumed_with_other_batches_takes_the_same_steps(
    factory_clips, tmp_path, hook, before, after
):
    """18 clips are five steps an epoch; validation every third step."""
    clips = factory_clips.where(machine="bearing", split="train")

    def run(module, accumulate, callbacks, **options):
        data = FirstShotDataModule(clips, batch_size=STEP, val_share=0.1)
        fit(
            module, data, tmp_path, callbacks, accumulate_grad_batches=accumulate,
            val_check_interval=3 * accumulate, **options,
        )  # fmt: skip
        return module

    whole, steps = Listener(), []
    run(whole, before, [Validations(steps)])
    heard = [seed for batch in whole.heard for seed in batch]
    assert len(heard) == len(set(heard)) == 12 * STEP
    for stop in (2, 3, 5, 6, 7):
        path, found = tmp_path / f"{stop}.ckpt", []
        first, second = Listener(), Listener()
        with pytest.raises(StopRunError):
            run(first, before, [Validations(found), Stop(stop, hook, path, before)])
        run(second, after, [Validations(found)], ckpt_path=path)
        assert [seed for batch in first.heard + second.heard for seed in batch] == heard
        assert found == steps, stop


def test_a_step_that_was_cut_begins_anew(factory_clips, tmp_path):
    clips = factory_clips.where(machine="bearing", split="train")

    def run(module, accumulate, callbacks=(), **options):
        data = FirstShotDataModule(clips, batch_size=STEP, val_share=0.1)
        fit(module, data, tmp_path, callbacks, accumulate_grad_batches=accumulate, **options)
        return [seed for batch in module.heard for seed in batch]

    heard = run(Listener(), 4)
    for after in (4, 1):
        path, first = tmp_path / f"{after}.ckpt", Listener()
        with pytest.raises(StopRunError):
            # After 5 of its 8 batches.
            run(first, 4, [Stop(1, "on_train_batch_start", path)])
        assert len(first.heard) == 4
        rest = run(Listener(), after, ckpt_path=path)
        assert rest == heard[STEP:]


def test_ranks_are_told_apart_by_the_trainer(factory_clips):
    clips = factory_clips.where(machine="bearing", split="train")
    progress = SimpleNamespace(total=SimpleNamespace(processed=0))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    heard = []
    for rank in range(2):
        data = FirstShotDataModule(clips, batch_size=8, val_share=0)
        data.trainer = SimpleNamespace(
            lightning_module=SimpleNamespace(examples=Heard), fit_loop=loop, world_size=2,
            global_rank=rank, accumulate_grad_batches=1,
        )  # fmt: skip
        data.setup("fit")
        heard.append([seed for batch in data.train_dataloader() for seed in batch.tolist()])
    assert len(heard[0]) == len(heard[1]) == 8
    assert not set(heard[0]) & set(heard[1])
