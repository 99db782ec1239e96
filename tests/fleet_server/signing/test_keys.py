from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet_server.signing.errors import KeyFileError
from fleet_server.signing.keys import create_key, load_key


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_key_survives_its_file(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "root.pem"
    made = create_key(path, passphrase)

    loaded = load_key(path, passphrase)

    assert loaded.public_key == made.public_key
    assert loaded.public_key.keyid == made.public_key.keyid
    assert path.stat().st_mode & 0o777 == 0o600
    assert (b"ENCRYPTED" in path.read_bytes()) is (passphrase is not None)


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    create_key(tmp_path / "root.pem")
    before = (tmp_path / "root.pem").read_bytes()

    with pytest.raises(KeyFileError, match="already"):
        create_key(tmp_path / "root.pem")
    assert (tmp_path / "root.pem").read_bytes() == before


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    create_key(tmp_path / "root.pem")
    (tmp_path / "root.pem").chmod(0o640)

    with pytest.raises(KeyFileError) as caught:
        load_key(tmp_path / "root.pem")
    assert caught.value.hint == f"chmod 600 {tmp_path / 'root.pem'}"


@pytest.mark.parametrize(
    ("made_with", "read_with", "reason"),
    [(b"one", b"two", "wrong passphrase"), (b"one", None, "needs a passphrase"), (None, b"two", "has no passphrase")],
)
def test_a_wrong_passphrase_is_named(
    tmp_path: Path, made_with: bytes | None, read_with: bytes | None, reason: str
) -> None:
    create_key(tmp_path / "root.pem", made_with)

    with pytest.raises(KeyFileError, match=reason):
        load_key(tmp_path / "root.pem", read_with)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    rsa = generate_private_key(65537, 2048)
    for name, content in {
        "text.pem": b"hello",
        "rsa.pem": rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(KeyFileError):
            load_key(tmp_path / name)
    with pytest.raises(KeyFileError, match="no such key"):
        load_key(tmp_path / "none.pem")
