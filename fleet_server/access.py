"""Who is asking: operators and devices show a bearer token, of which the database has the hash."""

from dataclasses import dataclass

from sqlalchemy import select

from fleet_server.credentials import hash_secret, matches
from fleet_server.database.engine import Database
from fleet_server.database.models import Device, OperatorToken
from fleet_server.errors import ForbiddenError, UnauthorizedError
from fleet_server.roles import Role


@dataclass(frozen=True, slots=True)
class Operator:
    """A person or a program that steers the fleet."""

    tenant: str
    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """A device, as its HTTP token says."""

    tenant: str
    id: str


def operator_of(database: Database, token: str | None) -> Operator:
    """Return whose token this is.

    Raises:
        UnauthorizedError: Nobody's.
    """
    if token:
        with database.read() as session:
            row = session.scalars(
                select(OperatorToken).where(
                    OperatorToken.secret_hash == hash_secret(token), OperatorToken.revoked_at.is_(None)
                )
            ).one_or_none()
        if row is not None and matches(token, row.secret_hash):
            return Operator(row.tenant, row.name, Role(row.role))
    raise UnauthorizedError(
        "an operator's token is needed", hint="`fleet init` wrote one to operator.token in the server's folder"
    )


def device_of(database: Database, token: str | None) -> DeviceIdentity:
    """Return which device's token this is.

    Raises:
        UnauthorizedError: None's, or the device is revoked.
    """
    if token:
        with database.read() as session:
            row = session.scalars(
                select(Device).where(Device.http_token_hash == hash_secret(token), Device.revoked_at.is_(None))
            ).one_or_none()
        if row is not None and matches(token, row.http_token_hash):
            return DeviceIdentity(row.tenant, row.id)
    raise UnauthorizedError("a device's token is needed", hint="enrol the device again with a new token")


def require(operator: Operator, role: Role) -> None:
    """Check that an operator may act in a role.

    Raises:
        ForbiddenError: It may not.
    """
    if not operator.role.allows(role):
        raise ForbiddenError(
            f"{operator.name} has the role {operator.role}, but this needs {role}",
            hint="ask an admin for another token",
        )
