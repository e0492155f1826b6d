"""Put weights on the Hugging Face hub, under the user's own account."""

import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from voxlift.core.errors import WeightsError
from voxlift.core.extras import require_extra
from voxlift.weights.file import WeightFile, write_weight_file
from voxlift.weights.huggingface import DEFAULT_FILE, HUB, check_repository, explain
from voxlift.weights.local_paths import clean
from voxlift.weights.model_card import model_card, own_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
_SECRET = re.compile(r"hf_[A-Za-z0-9_]+")


def push_weights(
    path: str | Path,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "Add weights and their card",
    overwrite: bool = False,
    summary: str | None = None,
    limits: str | None = None,
) -> str:
    """Publish a weight file of Voxlift's own, with its card, as a repository of the hub.

    The repository is made if it is not there; file and card go in with one commit. Paths of this
    machine in the provenance are left out of both; the rest of the header is published as it is, so
    look at it first (`voxlift inspect`).

    Args:
        path: The file.
        repository: As in `org/name`.
        private: Make the repository visible to its owners alone.
        token: An access token with leave to write; None takes that of `hf auth login`.
        message: Of the commit.
        overwrite: Replace the weights and the card of a repository that has them.
        summary: As in `model_card`.
        limits: As in `model_card`.

    Returns:
        The address of the repository.

    Raises:
        WeightsError: If the file is none of Voxlift's own, the name is none, nobody is logged in,
            the hub refuses, it holds other weights or a card already, or is public though `private`
            was asked for. Nothing is published then.
    """
    require_extra("hub", HUB)
    from huggingface_hub import HfApi, get_token

    file = own_file(path)
    check_repository(repository)
    token = token or get_token()
    if not token:
        raise WeightsError(
            "Nobody is logged in to the Hugging Face hub on this machine, so nothing can be "
            "published. Log in with a token that may write: hf auth login."
        )
    if file.header.licence is None:
        logger.warning("%s states no licence, so that nobody may use it for certain.", file.path)
    with tempfile.TemporaryDirectory() as folder:
        shown = _without_paths(file, Path(folder) / DEFAULT_FILE)
        card = model_card(shown, repository=repository, summary=summary, limits=limits)
        try:
            return _publish(
                HfApi(token=token),
                repository,
                weights=shown.path,
                card=card,
                private=private,
                message=message,
                overwrite=overwrite,
            )
        except WeightsError:
            raise
        # Whatever else goes wrong, the user has to know that nothing was published, and the text
        # of an unknown error might hold the token.
        except Exception as error:
            raise _refused(error, repository, token) from None


def _without_paths(file: WeightFile, copy: Path) -> WeightFile:
    """Write a copy that names no folder of this machine, if the file does."""
    provenance = clean(file.header.provenance)
    if provenance == file.header.provenance:
        return file
    logger.info("Paths of this machine are left out of the published provenance.")
    header = file.header.model_copy(update={"provenance": provenance})
    write_weight_file(copy, file.tensors, header)
    return own_file(copy)


def _publish(
    api: "HfApi",
    repository: str,
    *,
    weights: Path,
    card: str,
    private: bool,
    message: str,
    overwrite: bool,
) -> str:
    from huggingface_hub import CommitOperationAdd

    address = api.create_repo(repository, private=private, exist_ok=True)
    info = api.model_info(repository)
    if private and not info.private:
        raise WeightsError(
            f"{repository} is there already and is public. Make it private in its settings first, "
            "or give another name."
        )
    there = {sibling.rfilename for sibling in info.siblings or []}
    taken = [name for name in (DEFAULT_FILE, CARD_FILE) if name in there]
    if taken and not overwrite:
        raise WeightsError(
            f"{repository} holds {' and '.join(taken)} already. Give another name, or replace "
            "them with overwrite=True (--overwrite)."
        )
    api.create_commit(
        repository,
        [
            CommitOperationAdd(DEFAULT_FILE, str(weights)),
            CommitOperationAdd(CARD_FILE, card.encode("utf-8")),
        ],
        commit_message=message,
        # Refuse if anyone has changed the repository since it was looked at.
        parent_commit=info.sha,
    )
    return str(address)


def _refused(error: Exception, repository: str, token: str) -> WeightsError:
    from huggingface_hub.errors import HfHubHTTPError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HfHubHTTPError) and status in (401, 403, 404):
        text = (
            f"The hub does not let this account write to {repository} ({status}). Check that the "
            "name before the slash is yours or your organisation's, and log in with a token that "
            "may write: hf auth login."
        )
    elif isinstance(error, HfHubHTTPError) and status in (409, 412):
        text = f"Someone else changed {repository} in the meantime. Look at it and try again."
    else:
        text = str(explain(error, f"The repository {repository}", repository))
    text = _SECRET.sub("(token)", text.replace(token, "(token)"))
    return WeightsError(f"Nothing was published. {text}")
