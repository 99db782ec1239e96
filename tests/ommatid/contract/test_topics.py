import pytest
from hypothesis import given
from hypothesis import strategies as st

from ommatid.contract.topics import Channel, DeviceTopics, every_device, parse
from ommatid.errors import MessageError


@pytest.mark.parametrize("channel", list(Channel))
def test_a_topic_leads_back_to_its_device(channel: Channel) -> None:
    topics = DeviceTopics("acme", "camera-1")

    assert parse(topics.of(channel)) == (topics, channel)


def test_the_shard_is_fixed_for_ever() -> None:
    assert DeviceTopics("acme", "camera-1").of(Channel.STATE) == "om/v1/acme/6b/camera-1/state"
    assert every_device(Channel.STATE) == "om/v1/+/+/+/state"


@pytest.mark.parametrize("name", ["", "A", "a_b", "a/b", "+", "#", "a\n", "-a", "a-", "é", "a" * 64, "a b", "a\0"])
def test_a_name_that_would_leave_its_level_is_refused(name: str) -> None:
    with pytest.raises(MessageError):
        DeviceTopics("acme", name)
    with pytest.raises(MessageError):
        DeviceTopics(name, "camera-1")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "om/v1/acme/6b/camera-1",
        "om/v1/acme/00/camera-1/state",
        "om/v2/acme/6b/camera-1/state",
        "om/v1/acme/6b/camera-1/poem",
        "om/v1/acme/6b/camera-1/state/x",
        "$SYS/broker",
    ],
)
def test_a_topic_that_is_not_ours_is_refused(topic: str) -> None:
    with pytest.raises(MessageError):
        parse(topic)


@given(topic=st.text(max_size=60) | st.from_regex(r"om/v1/[a-z+#]{1,3}/[0-9a-f]{2}/[a-z0-9-]{1,5}/(state|ack|x)"))
def test_any_topic_is_understood_or_refused(topic: str) -> None:
    try:
        topics, channel = parse(topic)
    except MessageError:
        return
    assert topics.of(channel) == topic
