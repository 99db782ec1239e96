"""Put an enrolment token together: where the server is, what proves it, and the secret."""

from fleet_server.authority import Authority
from fleet_server.places import Places
from fleet_server.settings import Settings
from ommatid.contract.digests import sha256_file
from ommatid.contract.enrolment import EnrolmentToken


def enrolment_token(places: Places, settings: Settings, authority: Authority, secret: str) -> EnrolmentToken:
    """Return the token that carries `secret` and pins this server."""
    return EnrolmentToken(
        url=settings.url,
        secret=secret,
        ca_sha256=authority.digest,
        release_root_sha256=sha256_file(places.metadata / "release" / "1.root.json"),
        director_root_sha256=sha256_file(places.metadata / "director" / "1.root.json"),
    )
