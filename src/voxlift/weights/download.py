"""Weights from a web address: fetched once, and only if they have the checksum they should."""

import contextlib
import hashlib
import http.client
import logging
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from voxlift.core.errors import DataError, WeightsError
from voxlift.core.files import write_aside
from voxlift.weights.digest import file_sha256, published_hash
from voxlift.weights.header import installed_version

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "VOXLIFT_CACHE"
TIMEOUT_SECONDS = 30.0
MAX_BYTES = 20 * 10**9
CHUNK_BYTES = 2**20
ALL_DIGITS = 64
FEWEST_DIGITS = {"https": 8, "http": ALL_DIGITS}
"""How much of the sha256 must be known: without https anyone on the way could send another file,
and one whose sha256 begins with 8 given digits is found within minutes.
"""

FOLLOWED = {"https": ("https",), "http": ("http", "https")}
"""To what kinds of address a redirect may lead from each."""

ELSEWHERE = "fetch the file elsewhere, put it on this machine and give its path"


def cache_folder() -> Path:
    """Return the folder of fetched weights: in VOXLIFT_CACHE, else in the user's cache folder."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own).expanduser() / "weights"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "voxlift" / "weights"


def fetch_url(address: str) -> Path:
    """Fetch a file from the web, or find it in the cache, and check its sha256 either way.

    Args:
        address: `https://...` that ends in `#sha256=` and at least 8 hexadecimal digits, or whose
            file name carries them; or `http://...` with all 64.

    Returns:
        The file in the cache.

    Raises:
        WeightsError: If there is no checksum to go by, the file cannot be had, is too large, or has
            another checksum. Nothing is kept then.
    """
    url, checksum = split_checksum(address)
    cached = _cached(checksum)
    if cached is not None:
        return cached
    path = cache_folder() / f"{checksum}-{_file_name(url)}"
    logger.info("Fetching %s", url)
    try:
        with write_aside(path) as aside:
            found = _save(url, aside)
            if not found.startswith(checksum):
                raise WeightsError(
                    f"{url} has a sha256 that begins with {found[: len(checksum)]}; expected "
                    f"{checksum}. Nothing was kept. Compare the checksum with the one that the "
                    "publisher states; if that is right, the file was changed on the way or at "
                    "its source: do not use it."
                )
    except DataError as error:
        raise WeightsError(
            f"{url} could not be kept in {path.parent} ({error.__cause__}). Free some space, or "
            f"set {CACHE_VARIABLE} to a folder that can be written to."
        ) from error
    return path


def split_checksum(address: str) -> tuple[str, str]:
    """Part a web address from the sha256 that the file has to have.

    Returns:
        The address to fetch, and the first or all hexadecimal digits of the sha256.

    Raises:
        WeightsError: If there is no checksum, or too little of it for an address without https, or
            the address is none.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        host, user = parts.hostname, parts.username
    except ValueError as error:
        raise WeightsError(f"{address} is no web address: {error}.") from error
    if parts.scheme not in FEWEST_DIGITS:
        raise WeightsError(f"{address} is no web address: expected https://... or http://...")
    if not host or user is not None:
        raise WeightsError(
            f"{parts.scheme}://... has to go on with the name of a host, without user and "
            f"password; if the file is behind a log-in, {ELSEWHERE}."
        )
    url = urllib.parse.urlunsplit(parts._replace(fragment=""))
    fewest = FEWEST_DIGITS[parts.scheme]
    key, _, given = parts.fragment.partition("=")
    checksum = given.lower() if parts.fragment else published_hash(_file_name(url))
    if checksum is None:
        some = f"; the first {fewest} will do" if fewest < ALL_DIGITS else ""
        raise WeightsError(
            f"{url} comes without a checksum, so nobody could tell whether it is the file that "
            f"was published. {_what_to_append(url)} (with its own {ALL_DIGITS} hexadecimal "
            f"digits{some})."
        )
    known = f"[0-9a-f]{{{FEWEST_DIGITS['https']},{ALL_DIGITS}}}"
    if parts.fragment and (key.lower() != "sha256" or not re.fullmatch(known, checksum)):
        digits = f"{fewest} to {ALL_DIGITS}" if fewest < ALL_DIGITS else f"all {ALL_DIGITS}"
        raise WeightsError(
            f"{address} ends in #{parts.fragment}; expected #sha256= and {digits} hexadecimal "
            "digits."
        )
    if len(checksum) < fewest:
        raise WeightsError(
            f"{url} is not secure, and {len(checksum)} digits of the sha256 ({checksum}) are too "
            "few to tell a file that was changed on the way. Give an https address, or all "
            f"{fewest} digits. {_what_to_append(url)} (with the file's own digits)."
        )
    return url, checksum


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects from web address to web address, none to one that is less secure."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse to go from https to anything else, and from http to anything but the web."""
        allowed = FOLLOWED[req.type]
        if urllib.parse.urlsplit(newurl).scheme.lower() not in allowed:
            raise WeightsError(
                f"{req.full_url} redirects to {newurl}, which is not secure. Nothing was fetched; "
                f"give an address that stays with {' or '.join(allowed)}."
            )
        # The base class is documented to take these as they come.
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _cached(checksum: str) -> Path | None:
    """Find a file that was fetched before and is still what it was; remove one that is not."""
    for path in sorted(cache_folder().glob(f"{checksum}-*")):
        try:
            if file_sha256(path).startswith(checksum):
                return path
            logger.warning("%s was damaged since it was fetched; fetching it again.", path)
            path.unlink()
        except OSError as error:
            raise WeightsError(
                f"{path} could not be read or replaced: {error.strerror or error}. Check its "
                f"permissions, or set {CACHE_VARIABLE} to another folder."
            ) from error
    return None


def _save(url: str, path: Path) -> str:
    """Fetch a file to a path and return its sha256."""
    sha256 = hashlib.sha256()
    opener = urllib.request.build_opener(SafeRedirects)
    # The address was checked to be of http or https.
    request = urllib.request.Request(url, headers={"User-Agent": f"voxlift/{installed_version()}"})
    with _explained(url):
        response = opener.open(request, timeout=TIMEOUT_SECONDS)
    with contextlib.closing(response), path.open("wb") as file:
        announced = _announced(response, url)
        for chunk in _chunks(response, url, announced):
            sha256.update(chunk)
            file.write(chunk)
    return sha256.hexdigest()


def _announced(response: http.client.HTTPResponse, url: str) -> int | None:
    """Say how many bytes are to come, if the server says so, and refuse too many."""
    kind = response.headers.get_content_type()
    if kind == "text/html":
        raise WeightsError(
            f"{url} is a web page, not a file. Give the address behind its download button; if "
            f"that asks for a log-in or a click, {ELSEWHERE}."
        )
    if response.length is not None and response.length > MAX_BYTES:
        raise _too_large(url, response.length)
    return response.length


def _chunks(response: http.client.HTTPResponse, url: str, announced: int | None) -> Iterator[bytes]:
    """Read a response to its end, and no further than announced or allowed."""
    received = 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    quiet = not sys.stderr.isatty()
    with Progress(*columns, TransferSpeedColumn(), console=console, disable=quiet) as progress:
        task = progress.add_task(_file_name(url), total=announced)
        while True:
            with _explained(url):
                chunk = response.read(CHUNK_BYTES)
            if not chunk:
                break
            received += len(chunk)
            progress.update(task, completed=received)
            # What goes beyond the announced length is never read: the connection ends there.
            if received > MAX_BYTES:
                raise _too_large(url, received)
            yield chunk
    if announced is not None and received < announced:
        raise WeightsError(
            f"{url} was cut off: {received:,} of {announced:,} bytes came. Nothing was kept; try "
            f"again, or {ELSEWHERE}."
        )


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn whatever the network does into an error that says what to do."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            hint = {
                401: f"It asks for a log-in: {ELSEWHERE}.",
                403: f"It is not open to everyone: {ELSEWHERE}.",
                404: "Check the address.",
            }.get(error.code, f"Try again later, or {ELSEWHERE}.")
        raise WeightsError(
            f"{url} could not be fetched: the server answers {error.code} {error.reason}. {hint}"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise WeightsError(
            f"{url} could not be fetched: {reason or type(error).__name__}. Check the address and "
            f"the network; without one, {ELSEWHERE}."
        ) from error


def _too_large(url: str, num_bytes: int) -> WeightsError:
    return WeightsError(
        f"{url} has {num_bytes:,} bytes or more; at most {MAX_BYTES:,} are fetched. Check the "
        f"address; if it is right, {ELSEWHERE}."
    )


def _what_to_append(url: str) -> str:
    return (
        f"Append #sha256= and the sha256 that its publisher states: {url}#sha256={'0' * ALL_DIGITS}"
    )


def _file_name(url: str) -> str:
    """Take a name for the file from its address, with no character that a disk could mind."""
    last = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "_", last)[-100:] or "weights"
