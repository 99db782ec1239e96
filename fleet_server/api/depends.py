"""What routes ask for: the services, and who is asking."""

from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fleet_server.access import DeviceIdentity, Operator, device_of, operator_of, require
from fleet_server.errors import UnauthorizedError
from fleet_server.roles import Role
from fleet_server.services import Services

_bearer = HTTPBearer(auto_error=False)


def services(request: Request) -> Services:
    """Return the parts of this server."""
    return cast("Services", request.app.state.services)


ServicesOf = Annotated[Services, Depends(services)]
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def bearer(credentials: Credentials) -> str | None:
    """Return the token of the request, if there is one."""
    return credentials.credentials if credentials else None


Bearer = Annotated[str | None, Depends(bearer)]


def viewer(parts: ServicesOf, token: Bearer) -> Operator:
    """Return the operator who asks; any role."""
    return operator_of(parts.database, token)


def operator(who: Annotated[Operator, Depends(viewer)]) -> Operator:
    """Return the operator who asks, if it may steer the fleet."""
    require(who, Role.OPERATOR)
    return who


def admin(who: Annotated[Operator, Depends(viewer)]) -> Operator:
    """Return the operator who asks, if it may make tokens and revoke devices."""
    require(who, Role.ADMIN)
    return who


def device(parts: ServicesOf, token: Bearer) -> DeviceIdentity:
    """Return the device that asks."""
    return device_of(parts.database, token)


def anyone_known(parts: ServicesOf, token: Bearer) -> DeviceIdentity | Operator:
    """Return the device or operator that asks."""
    try:
        return device_of(parts.database, token)
    except UnauthorizedError:
        return operator_of(parts.database, token)


Viewer = Annotated[Operator, Depends(viewer)]
Steerer = Annotated[Operator, Depends(operator)]
Admin = Annotated[Operator, Depends(admin)]
AskingDevice = Annotated[DeviceIdentity, Depends(device)]
AnyoneKnown = Annotated[DeviceIdentity | Operator, Depends(anyone_known)]
