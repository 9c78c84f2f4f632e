"""A name on the hub -> a folder of its cache.  Only what was asked for by name with ``hub`` comes
here: nothing else in the bridge opens a connection.
"""

from __future__ import annotations

from pathlib import Path

from builder.errors import InputError
from hf_bridge.folder import CONFIG, INDEX, WEIGHTS, Folder, open_folder

# Data only: no code, no pickles, no copies of the weights in other formats.
WANTED = [
    CONFIG,
    "generation_config.json",
    WEIGHTS,
    WEIGHTS.replace(".", "-*-of-*.", 1),
    INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
]
PAGE = "https://huggingface.co/"


def open_hub(name: str) -> Folder:
    """The newest snapshot of ``owner/name``, downloaded as far as the cache lacks it.

    Where ``HF_HUB_OFFLINE`` is set, or the hub cannot be reached, it is the one in the cache.
    """
    return Folder(open_folder(download(name)).path, label=name)


def download(name: str) -> Path:
    """The folder in the cache.  InputError says what stood in the way."""
    from huggingface_hub import constants, errors, snapshot_download

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=WANTED, local_files_only=constants.HF_HUB_OFFLINE
            )
        )
    except errors.HFValidationError:
        help = "a folder is read without --hub"
        message = f"{name!r} is no name on the hub, such as owner/name"
        raise InputError("hub-missing", message, help) from None
    except errors.GatedRepoError:
        help = f"ask for access at {PAGE}{name}, then `hf auth login`"
        raise InputError("hub-gated", f"{name!r} is open only to some", help) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        help = "a private one needs `hf auth login`"
        raise InputError("hub-missing", f"the hub has no model {name!r}", help) from None
    except errors.LocalEntryNotFoundError as error:
        raise _not_here(name, constants.HF_HUB_OFFLINE, error) from None
    except Exception as error:  # of the package, its client and the network: no narrower type
        raise _not_here(name, False, error) from None


def _not_here(name: str, offline: bool, error: Exception) -> InputError:
    from huggingface_hub import constants

    if offline:
        message = f"{name!r} is not whole in the cache {constants.HF_HUB_CACHE}"
        return InputError("hub-missing", message, "HF_HUB_OFFLINE forbids looking further")
    reason = str(error.__cause__ or error).partition("\n")[0]
    message = f"{name!r} cannot be fetched from the hub: {reason}"
    return InputError("hub-unreachable", message, "what is in the cache already is read offline")
