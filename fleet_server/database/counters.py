"""Numbers that only grow, also when the server restarts between two of them."""

from sqlalchemy import update
from sqlalchemy.orm import Session

from fleet_server.database.engine import insert_once
from fleet_server.database.models import Counter


def next_number(session: Session, name: str) -> int:
    """Return the next number of a counter, from 1 on; it is taken when the session commits."""
    insert_once(session, Counter, [{"name": name, "value": 0}])
    statement = update(Counter).where(Counter.name == name).values(value=Counter.value + 1).returning(Counter.value)
    return session.scalars(statement).one()
