"""A trained model back from the folder of its run."""

from dataclasses import dataclass
from pathlib import Path

from isodepth.errors import InputError
from isodepth.model.looped import LoopedModel
from isodepth.training.checkpoint import State, newest_checkpoint
from isodepth.training.config import TrainConfig
from isodepth.training.data import TOKENIZER_FILE
from isodepth.training.tokens import Tokenizer, load_tokenizer
from isodepth.training.trainer import CHECKPOINTS


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What is needed to read and write text with a trained model."""

    model: LoopedModel  # on the CPU, in evaluation mode
    tokenizer: Tokenizer
    state: State  # of the checkpoint that it came from
    notes: list[str]  # about checkpoints that were passed over


def load_trained(folder: Path) -> TrainedModel:
    """The newest whole checkpoint of the run in `folder`.

    Raises InputError where there is none.
    """
    checkpoint, notes = newest_checkpoint(folder / CHECKPOINTS)
    if checkpoint is None:
        raise InputError(f"{folder} holds no checkpoint of a run")
    state = checkpoint.state
    config = TrainConfig.from_mapping(state.config, where=f"checkpoint {checkpoint.folder}")
    model = LoopedModel(config.model(vocabulary=state.vocabulary))
    model.load_state_dict(checkpoint.model())
    model.eval()
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    return TrainedModel(model=model, tokenizer=tokenizer, state=state, notes=notes)
