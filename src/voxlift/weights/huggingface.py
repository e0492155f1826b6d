"""Weights from a model repository of the Hugging Face hub: `hf://org/name/file@revision`.

Files are kept in the hub's own cache, so that what was fetched once needs no network.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from voxlift.core.errors import WeightsError
from voxlift.core.extras import require_extra

SCHEME = "hf://"
DEFAULT_FILE = "model.safetensors"
HUB = "Weights of the Hugging Face hub"
SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin", ".ckpt")
"""Endings of files that hold weights."""

_GRAMMAR = "hf://ORGANISATION/NAME, hf://ORGANISATION/NAME/FILE, either with @REVISION at its end"
_COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})/")


@dataclass(frozen=True)
class HubAddress:
    """One file, or the one file that matters, of a model repository.

    Args:
        repository: As in `org/name`.
        file: Path inside the repository; None to look for the weights.
        revision: Branch, tag or commit; None for the newest.
    """

    repository: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        return f"{SCHEME}{self.repository}{file}" + (f"@{self.revision}" if self.revision else "")


def parse_address(text: str) -> HubAddress:
    """Take `hf://org/name[/file][@revision]` apart.

    Raises:
        WeightsError: If it is not of that form.
    """
    rest, has_revision, revision = text[len(SCHEME) :].partition("@")
    organisation, _, inside = rest.partition("/")
    name, _, file = inside.partition("/")
    parts = [organisation, name, *(file.split("/") if "/" in inside else [])]
    if any(part in ("", ".", "..") for part in parts) or (has_revision and not revision):
        raise WeightsError(f"{text} is incomplete; expected {_GRAMMAR}.")
    if organisation in ("datasets", "spaces"):
        raise WeightsError(
            f"{text} is no model repository; weights are read from those alone: {_GRAMMAR}."
        )
    repository = f"{organisation}/{name}"
    check_repository(repository)
    return HubAddress(repository, file or None, revision or None)


def check_repository(name: str) -> None:
    """Check that a repository could have this name, as in `org/name`.

    Raises:
        WeightsError: If none could.
    """
    require_extra("hub", HUB)
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise WeightsError(f"{name!r} cannot be the name of a repository. {error}") from error
    if "/" not in name:
        raise WeightsError(
            f"{name!r} does not say whose repository it is; expected USER/{name} or "
            f"ORGANISATION/{name}."
        )


def fetch_from_hub(text: str) -> tuple[Path, tuple[str, ...]]:
    """Fetch a weight file of the hub, or find it in the hub's cache.

    Args:
        text: `hf://org/name[/file][@revision]`. Without a file: `model.safetensors`, else the only
            .safetensors file, else the only weight file.

    Returns:
        The file in the cache, and notes for the load report: which commit it is of.

    Raises:
        WeightsError: If the repository, revision or file is not there or not open to the user, if
            it is not plain which file is meant, or if there is no network and no cached copy.
    """
    require_extra("hub", HUB)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    address = parse_address(text)
    file = address.file or DEFAULT_FILE
    try:
        path = Path(hf_hub_download(address.repository, file, revision=address.revision))
    except LocalEntryNotFoundError as error:
        cached = None if address.file else _only_cached(address)
        if cached is None:
            raise _unreachable(address, file, error) from error
        path = cached
    except EntryNotFoundError as error:
        if address.file:
            raise _no_such_file(address) from error
        chosen = HubAddress(address.repository, _choose(address), address.revision)
        return fetch_from_hub(str(chosen))
    # Whatever else goes wrong inside, the user has to know what was being fetched.
    except Exception as error:
        raise explain(error, str(address), address.repository) from error
    return path, _notes(address.repository, path)


def explain(error: Exception, what: str, repository: str) -> WeightsError:
    """Say what an error of the hub means, and what to do.

    Args:
        error: As `huggingface_hub` raised it.
        what: What could not be had, for the message.
        repository: As in `org/name`.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return WeightsError(
            f"{what} is open only to those who accepted its terms. Accept them at "
            f"https://huggingface.co/{repository}, then log in on this machine: hf auth login."
        )
    if isinstance(error, RepositoryNotFoundError):
        return WeightsError(
            f"There is no {what}: no repository {repository} is on the hub, or it is private. "
            "Check the name; for a private one log in first: hf auth login."
        )
    if isinstance(error, RevisionNotFoundError):
        return WeightsError(
            f"There is no {what}: {repository} has no such revision. Give a branch, a tag or a "
            f"commit of it, last of all: {_GRAMMAR}.{_known_files(HubAddress(repository))}"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return WeightsError(
            f"{what} needs the network, and HF_HUB_OFFLINE forbids its use. Unset it."
        )
    reason = " ".join(str(error).split()) or type(error).__name__
    return WeightsError(f"{what} could not be reached: {reason}. Check the network and try again.")


def _choose(address: HubAddress) -> str:
    """Decide which file of a repository without `model.safetensors` holds the weights."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(address.repository, revision=address.revision)
    except Exception as error:
        raise explain(error, str(address), address.repository) from error
    return _only_weights(address, files)


def _only_weights(address: HubAddress, files: list[str]) -> str:
    """Take the only .safetensors file, else the only weight file."""
    weights = [file for file in files if file.endswith(SUFFIXES)]
    safe = [file for file in weights if file.endswith(".safetensors")]
    if len(safe) == 1:
        return safe[0]
    if len(weights) == 1:
        return weights[0]
    if not weights:
        raise WeightsError(
            f"{address} holds no weights: none of its {len(files)} files ends in "
            f"{', '.join(SUFFIXES)}. Look for another repository."
        )
    raise WeightsError(
        f"{address} holds several weight files: {_listed(weights)}. Say which, as in "
        f"{HubAddress(address.repository, weights[0], address.revision)}."
    )


def _no_such_file(address: HubAddress) -> WeightsError:
    whole = HubAddress(address.repository, None, address.revision)
    return WeightsError(f"There is no file {address.file} in {whole}.{_known_files(whole)}")


def _known_files(address: HubAddress) -> str:
    """List the weight files of a repository, if the hub tells them."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(address.repository, revision=address.revision)
    # The list is a courtesy: whatever goes wrong with it, the first error is what matters.
    except Exception:
        return ""
    weights = [file for file in files if file.endswith(SUFFIXES)]
    return f" Its weight files are: {_listed(weights)}." if weights else " It holds no weights."


def _unreachable(address: HubAddress, file: str, error: Exception) -> WeightsError:
    names = [name for name, _ in _cached_files(address)]
    cause = " ".join(str(error.__cause__ or "no network, or HF_HUB_OFFLINE forbids it").split())
    there = f" In the cache are of this repository: {_listed(names)}." if names else ""
    revision = f" --revision {address.revision}" if address.revision else ""
    return WeightsError(
        f"{address} is not in the hub's cache, and the hub cannot be asked ({cause}).{there} On a "
        f"machine with a network run: hf download {address.repository} {file}{revision}; then put "
        "the file on this machine and give its path."
    )


def _only_cached(address: HubAddress) -> Path | None:
    """Find, without network, what the hub chose while there was one.

    Only if it is known that the repository has no `model.safetensors`: else another file of it
    could silently stand in for the one that was meant.
    """
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    known = try_to_load_from_cache(address.repository, DEFAULT_FILE, revision=address.revision)
    if known is not _CACHED_NO_EXIST:
        return None
    files = dict(_cached_files(address))
    return files[_only_weights(address, list(files))] if files else None


def _cached_files(address: HubAddress) -> list[tuple[str, Path]]:
    """List the weight files of a repository's revision that the hub's cache holds."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    wanted = address.revision or "main"
    return sorted(
        (file.file_path.relative_to(revision.snapshot_path).as_posix(), file.file_path)
        for repository in repositories
        if repository.repo_type == "model" and repository.repo_id == address.repository
        for revision in repository.revisions
        if wanted in revision.refs or wanted == revision.commit_hash
        for file in revision.files
        if file.file_name.endswith(SUFFIXES)
    )


def _notes(repository: str, path: Path) -> tuple[str, ...]:
    found = _COMMIT.search(path.as_posix())
    return (f"{path.name} of {repository} at commit {found[1]}",) if found else ()


def _listed(names: list[str]) -> str:
    more = len(names) - 12
    return ", ".join(names[:12]) + (f" and {more} more" if more > 0 else "")
