"""A queue's URL: what is right, and what is said of what is wrong."""

import pytest

from modelmeter.errors import WrongSetting
from modelmeter.queue.url import NatsUrl, PostgresUrl, PubsubUrl, parse


def test_each_form_is_read() -> None:
    assert parse("postgres:") == PostgresUrl()
    assert parse("nats://a:4222/events") == NatsUrl(("nats://a:4222",), "events")
    assert parse(
        "nats://me:word@a:1,b,[::1]:3/events?replicas=3&ack_wait_seconds=9&max_deliver=7&limit_bytes=5"
    ) == NatsUrl(("nats://me:word@a:1", "nats://me:word@b:4222", "nats://me:word@[::1]:3"), "events", 3, 9, 7, 5)
    assert parse("pubsub://my-project/events?subscription=workers") == PubsubUrl("my-project", "events", "workers")
    assert parse(
        "pubsub://my-project/events?subscription=workers&endpoint=europe-west1-pubsub.googleapis.com:443&exactly_once=true"
    ) == PubsubUrl("my-project", "events", "workers", "europe-west1-pubsub.googleapis.com:443", exactly_once=True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "it does not say which queue"),
        ("kafka://a/b", "there is no queue called 'kafka'"),
        ("postgresql://u@h/d", "in the database of database_url"),
        ("nats:///events", "a host is missing"),
        ("nats://a:4222", "the stream's name is missing"),
        ("nats://a:4222/two/words", "no name for a stream"),
        ("nats://a:no/events", "is no port"),
        ("nats://a/events?replicas=2", "replicas must be 1, 3 or 5"),
        ("nats://a/events?replicas=x", "replicas is no number"),
        ("nats://a/events?replicas=1.5", "whole number"),
        ("nats://a/events?replica=3", "there is no option 'replica'"),
        ("nats://a/events?replicas=3&replicas=3", "given twice"),
        ("nats://a/events?ack_wait_seconds=0", "must be from 0.5 to 3600"),
        ("nats://a/events#b", "nothing may follow"),
        ("pubsub:///t?subscription=abc", "the project is missing"),
        ("pubsub://my-project?subscription=abc", "the topic is missing"),
        ("pubsub://my-project/topic", "the subscription is missing"),
        ("pubsub://my-project/goog-t?subscription=abc", "no name for a topic"),
        ("pubsub://my-project/topic?subscription=abc&exactly_once=yes", "must be true or false"),
    ],
)
def test_a_wrong_url_says_what_is_wrong_and_the_right_form(url: str, said: str) -> None:
    with pytest.raises(WrongSetting) as caught:
        parse(url)
    assert said in caught.value.detail
    assert "the form is" in caught.value.detail


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(WrongSetting) as caught:
        parse("nats://me:secret@host/")
    assert "secret" not in caught.value.detail
