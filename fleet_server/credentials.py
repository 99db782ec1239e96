"""Secrets we hand out: 256 random bits each, of which only the sha256 is kept.

A plain hash is enough: nobody can guess 256 random bits, so there is nothing a slow hash would slow down.
"""

import hmac
import secrets

from ommatid.contract.digests import sha256_bytes


def new_secret() -> str:
    """Return a fresh secret, 43 characters of URL-safe text."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """Return what the database keeps of a secret."""
    return sha256_bytes(secret.encode())


def matches(secret: str, stored_hash: str) -> bool:
    """Compare a secret with a stored hash in constant time."""
    return hmac.compare_digest(hash_secret(secret), stored_hash)
