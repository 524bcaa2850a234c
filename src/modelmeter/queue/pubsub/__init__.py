"""The queue in Google Cloud Pub/Sub: a topic, one subscription for all workers, a topic for what nobody could store.

The official client batches publishing and bounds what is in flight. Workers pull as much as they can store, no more,
so that the rest is there for others; leases are extended while a message is in hand. PUBSUB_EMULATOR_HOST is honoured.
"""

from modelmeter.queue.pubsub.broker import PubsubBroker
from modelmeter.queue.pubsub.gauge import Gauge
from modelmeter.queue.pubsub.producer import PubsubProducer
from modelmeter.queue.pubsub.steward import PubsubSteward

make_producer, make_broker, make_steward = PubsubProducer, PubsubBroker, PubsubSteward

__all__ = ["Gauge", "PubsubBroker", "PubsubProducer", "PubsubSteward", "make_broker", "make_producer", "make_steward"]
