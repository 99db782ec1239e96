"""Ed25519 private keys as PKCS8 PEM files of mode 0600, with a passphrase if one is given.

A passphrase comes from a file or a prompt, never from the command line.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from fleet_server.signing.errors import KeyFileError

MAX_KEY_BYTES = 64 * 1024


def create_key(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """Make a new key and write it; an existing file is never replaced.

    Raises:
        KeyFileError: There is already a file of this name.
        OSError: The folder cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise KeyFileError(f"{path}: there is a key already", hint="keys are never replaced: move it away") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return CryptoSigner(key)


def load_key(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """Read a key.

    Raises:
        KeyFileError: It is missing, readable by others, not an Ed25519 key, or the passphrase is wrong.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path}: others can read this private key", hint=f"chmod 600 {path}")
        with path.open("rb") as file:
            content = file.read(MAX_KEY_BYTES)
    except FileNotFoundError as error:
        raise KeyFileError(f"{path}: no such key", hint="name the folder that `fleet init --keys` wrote") from error
    try:
        key = load_pem_private_key(content, passphrase)
    except TypeError as error:  # a passphrase is missing, or one is given that is not needed
        wanted = "needs a passphrase" if passphrase is None else "has no passphrase, but one was given"
        raise KeyFileError(f"{path}: the key {wanted}", hint="see --passphrase-file") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: not a private key, or a wrong passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: not an Ed25519 key")
    return CryptoSigner(key)
