import hashlib
from pathlib import Path

import pytest

from ommatid.contract.digests import canonical_json, sha256_bytes, sha256_file


def test_bytes_and_file_give_one_digest(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(content)

    expected = hashlib.sha256(content).hexdigest()

    assert sha256_bytes(content) == expected
    assert sha256_file(tmp_path / "file") == expected


def test_equal_documents_give_equal_bytes() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == canonical_json({"a": "é", "b": 1}) == '{"a":"é","b":1}\n'.encode()


def test_not_a_number_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
