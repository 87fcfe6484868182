"""Pruners in the frameworks that own the loop: Lightning, Accelerate, TensorBoard."""

from __future__ import annotations

import accelerate
import lightning
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from pconvgen.pruning import ADMMPruner, Density, tensorboard
from tests.pruning.models import inputs, mixed, train

# They import and run whole frameworks; that pruners keep their state is tested in test_pruners.py and test_loops.py.
pytestmark = pytest.mark.long


def loader():
    rng = torch.Generator().manual_seed(7)
    data = TensorDataset(torch.randn((16, 3, 8, 8), generator=rng), torch.randint(5, (16,), generator=rng))
    return DataLoader(data, batch_size=8)


class Classifier(lightning.LightningModule):
    """A network and its pruner."""

    def __init__(self):
        super().__init__()
        self.net = mixed()
        self.pruner = ADMMPruner(self.net, (inputs(),), "pattern", Density(0.25))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-2)

    def training_step(self, batch, index):
        x, y = batch
        return functional.cross_entropy(self.net(x), y) + self.pruner.penalty()


class Pruning(lightning.Callback):
    """As docs/pruning.md has it."""

    def __init__(self, pruner, epochs):
        self.pruner, self.epochs = pruner, epochs

    def on_train_epoch_end(self, trainer, module):
        self.pruner.step(trainer.current_epoch)
        if trainer.current_epoch + 1 == self.epochs:
            self.pruner.harden()

    def state_dict(self):
        return self.pruner.state_dict()

    def load_state_dict(self, state):
        self.pruner.load_state_dict(state)


def fit(module, epochs, folder, checkpoint=None):
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[Pruning(module.pruner, epochs=2)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, loader(), ckpt_path=checkpoint, weights_only=True)
    return trainer


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lightning_prunes_and_goes_on_from_its_checkpoints(tmp_path):
    whole = Classifier()
    fit(whole, 4, tmp_path)
    assert (whole.net.block.weight == 0).float().mean() >= 0.75
    parts = Classifier()
    fit(parts, 1, tmp_path).save_checkpoint(tmp_path / "one.ckpt")
    resumed = Classifier()
    fit(resumed, 4, tmp_path, tmp_path / "one.ckpt")
    for mine, other in zip(whole.net.parameters(), resumed.net.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_accelerate_prunes():
    accelerator = accelerate.Accelerator(cpu=True)
    model = mixed()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, batches = accelerator.prepare(model, optimizer, loader())
    pruner = ADMMPruner(model, (inputs(),), "simd_block", Density(0.25))
    for epoch in range(4):
        for x, y in batches:
            loss = functional.cross_entropy(model(x), y) + pruner.penalty()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        pruner.step(epoch)
        if epoch == 1:
            pruner.harden()
    weight = accelerator.unwrap_model(model).block.weight
    assert (weight == 0).float().mean() == 0.75
    assert weight.abs().max() > 0


def test_tensorboard_has_the_scalars_of_each_step(tmp_path):
    model = mixed()
    with SummaryWriter(tmp_path) as writer:
        pruner = ADMMPruner(model, (inputs(),), "pattern", Density(0.25), callbacks=[tensorboard(writer)])
        train(model, pruner, 3)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("pruning/rho")] == [0, 1, 2]
    assert [round(event.value, 4) for event in events.Scalars("pruning/density/block")] == [0.25] * 3
