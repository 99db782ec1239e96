"""MQTT v5: one session that outlives brokers."""

from ommatid.mqtt.broker import Broker
from ommatid.mqtt.session import CBOR, JSON, Received, Session, Will

__all__ = ["CBOR", "JSON", "Broker", "Received", "Session", "Will"]
