"""Publishes to a queue with publisher confirms, with pika's SelectConnection.

AMQP_URL=URL publisher.py QUEUE WINDOW BYTES WARM_UP SECONDS

Keeps WINDOW persistent messages of BYTES bytes without a confirm, and prints how many were confirmed
a second in the SECONDS after WARM_UP seconds.
"""

import collections
import os
import sys
import time

import pika

queue = sys.argv[1]
window, size = map(int, sys.argv[2:4])
warm_up, seconds = map(float, sys.argv[4:6])
properties = pika.BasicProperties(delivery_mode=2)
begun = time.monotonic()
sent = before = 0
since = None
# The tags of those that are not confirmed, oldest first.
waiting = collections.OrderedDict()


def confirm(channel, method):
    global before, since
    if not connection.is_open:
        return
    if isinstance(method, pika.spec.Basic.Nack):
        raise RuntimeError("RabbitMQ refused a message")
    waiting.pop(method.delivery_tag, None)
    while method.multiple and waiting and next(iter(waiting)) < method.delivery_tag:
        waiting.popitem(last=False)
    now, confirmed = time.monotonic(), sent - len(waiting)
    if since is None and now >= begun + warm_up:
        since, before = now, confirmed
    if since is not None and now >= since + seconds:
        print((confirmed - before) / (now - since))
        connection.close()
        return
    fill(channel)


def fill(channel):
    global sent
    while len(waiting) < window:
        channel.basic_publish("", queue, str(sent).ljust(size).encode(), properties)
        sent += 1
        waiting[sent] = True


def opened(channel):
    channel.confirm_delivery(lambda frame: confirm(channel, frame.method), lambda _: fill(channel))


connection = pika.SelectConnection(
    pika.URLParameters(os.environ["AMQP_URL"]),
    on_open_callback=lambda connection: connection.channel(on_open_callback=opened),
    on_open_error_callback=lambda _, error: sys.exit(str(error)),
    on_close_callback=lambda connection, _: connection.ioloop.stop(),
)
connection.ioloop.start()
