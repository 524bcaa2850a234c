"""The queue in NATS JetStream: a stream on disk, one durable pull consumer for all workers, explicit acks.

A message has an id for the broker's own deduplication, so a publish whose answer was lost is repeated safely.
The leases of what is in hand are extended for as long as this process lives; when it dies they end and another
worker gets the messages.
"""

from modelmeter.queue.nats.broker import NatsBroker
from modelmeter.queue.nats.producer import NatsProducer
from modelmeter.queue.nats.steward import NatsSteward

make_producer, make_broker, make_steward = NatsProducer, NatsBroker, NatsSteward

__all__ = ["NatsBroker", "NatsProducer", "NatsSteward", "make_broker", "make_producer", "make_steward"]
