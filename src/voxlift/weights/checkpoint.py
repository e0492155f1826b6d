"""Checkpoints of our own runs: the state of a training, with the header of its model beside it."""

from voxlift.core.errors import WeightsError
from voxlift.weights.container import Container
from voxlift.weights.foreign.names import split_prefix
from voxlift.weights.foreign.training_state import training_state
from voxlift.weights.header import HEADER_KEY, WeightHeader, parse_header
from voxlift.weights.plain_copy import MAX_TEXT
from voxlift.weights.translation import Translation

MODEL_PREFIX = "model."
CALLBACK = "BestCheckpoint"


class CheckpointFormat:
    """A `last.ckpt` or `best.ckpt` of a run folder."""

    summary = "checkpoints of Voxlift's runs, for voxlift convert"
    licence = "as each file says"

    def recognises(self, container: Container) -> bool:
        """Look for the header beside the tensors, or for a callback that all our runs have."""
        callbacks = container.extras.get("callbacks")
        ours = isinstance(callbacks, dict) and CALLBACK in callbacks
        return HEADER_KEY in container.extras or ours

    def translate(self, container: Container) -> Translation:
        """Take the model out of the training task, and note the step in its provenance.

        Raises:
            WeightsError: If there is no header, or it does not hold together.
        """
        where = str(container.path)
        if HEADER_KEY not in container.extras:
            raise WeightsError(
                f"{where} has no Voxlift header; expected a checkpoint of a run folder. Of a run "
                "by an older Voxlift, --resume makes the model."
            )
        parts = container.extras[HEADER_KEY]
        text = "".join(map(str, parts)) if isinstance(parts, list) else str(parts)
        header = parse_header(text, where=where)
        found = container.extras.get("global_step")
        step = found if isinstance(found, int) else None
        model, others = split_prefix(container.tensors, MODEL_PREFIX)
        notes = [f"Checkpoint of step {step}"]
        if header.head and header.head.task == "classify" and header.head.num_classes == 2:
            notes.append(
                "No threshold: it is chosen at the end of a run. The likelier class is predicted."
            )
        return Translation(
            model,
            header.model_copy(
                update={"provenance": {**header.provenance, "checkpoint_step": step}}
            ),
            ignored={
                **training_state(container.extras),
                **dict.fromkeys(others, "part of the training task, not of the model"),
            },
            notes=tuple(notes),
        )


def header_parts(header: WeightHeader) -> list[str]:
    """Divide the text of a header, for of what stands beside tensors long texts are cut short."""
    text = header.to_json()
    return [text[start : start + MAX_TEXT] for start in range(0, len(text), MAX_TEXT)]
