"""How a device joins a fleet: the one-time token, and the few requests it makes before it has a certificate.

The token pins the server: it carries the digests of its CA and of both trust roots. It is a secret, so it travels in
a file or on standard input, never in argv or a log.
"""

import base64
from typing import Annotated, Final, Self

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from ommatid.contract.digests import Sha256
from ommatid.contract.messages import Identifier
from ommatid.errors import BadInputError

PREFIX: Final = "om1."
MAX_PEM: Final = 16 * 1024

Pem = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PEM)]
Secret = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{16,128}$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:=-]{0,62}$")]
_TAG: Final = TypeAdapter(Tag)


def check_tag(text: str) -> str:
    """Return a device's tag.

    Raises:
        BadInputError: It is not one.
    """
    try:
        return _TAG.validate_python(text)
    except ValidationError:
        raise BadInputError(
            f"--tag {text}: not a tag", hint="use letters of a-z and A-Z, digits, and any of `_.:=-`, at most 63"
        ) from None


class EnrolmentToken(BaseModel):
    """What an operator hands to a device; expiry and the number of uses are kept by the server."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    url: str = Field(alias="u", description="https address of the server", max_length=500)
    secret: Secret = Field(alias="s")
    ca_sha256: Sha256 = Field(alias="ca", description="of the fleet CA's certificate, DER")
    release_root_sha256: Sha256 = Field(alias="rr", description="of the release repository's 1.root.json")
    director_root_sha256: Sha256 = Field(alias="dr", description="of the director's 1.root.json")

    def encode(self) -> str:
        """Return the token as one line of text."""
        body = self.model_dump_json(by_alias=True).encode()
        return PREFIX + base64.urlsafe_b64encode(body).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read a token.

        Raises:
            BadInputError: It is not one, or was cut short.
        """
        try:
            body = text.strip().removeprefix(PREFIX).encode("ascii")
            if not text.strip().startswith(PREFIX):
                raise ValueError(f"it does not begin with {PREFIX}")
            token = cls.model_validate_json(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
            if TypeAdapter(AnyHttpUrl).validate_python(token.url).scheme != "https":
                raise ValueError("its address is not https")
        except ValueError as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise BadInputError(
                f"this is not an enrolment token: {reason}", hint="`fleet token` on the server makes one; copy it whole"
            ) from error
        return token


class Received(BaseModel):
    """A body of the enrolment API; neighbouring releases may add fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Roots(Received):
    """`GET /v1/enrol/roots`: both pinned roots, as text; their digests are in the token."""

    release: str
    director: str


class EnrolRequest(Received):
    """`POST /v1/enrol`."""

    token_secret: Secret
    device: Identifier
    csr_pem: Pem
    tags: tuple[Tag, ...] = Field((), max_length=32)


class BrokerAddress(Received):
    """Where the broker listens for devices."""

    host: str
    port: int = Field(ge=1, le=65535)


class EnrolAnswer(Received):
    """What a device needs from now on; `http_token` is a secret."""

    device: Identifier
    tenant: Identifier
    certificate_pem: Pem
    ca_pem: Pem
    broker: BrokerAddress
    http_token: Secret
    server_name: str = Field(description="a name in the certificates of server and broker")


class RenewRequest(Received):
    """`POST /v1/renew`: a new certificate for the holder of the old key; the old certificate may have expired."""

    certificate_pem: Pem
    csr_pem: Pem
    signature: Annotated[str, StringConstraints(max_length=1024)] = Field(
        description="base64 of the old key's ECDSA-SHA256 signature over the bytes of csr_pem"
    )


class RenewAnswer(Received):
    """The new certificate."""

    certificate_pem: Pem
