"""Waits for messages of a queue and publishes them itself at a rate, with pika's SelectConnection.

AMQP_URL=URL waiter.py QUEUE RATE BYTES WARM_UP SECONDS

Prints the median and the 99th percentile of the milliseconds from when a message was due until it
arrived, without those of the first WARM_UP seconds.
"""

import os
import sys
import time

import pika

queue = sys.argv[1]
rate, size = map(int, sys.argv[2:4])
warm_up, seconds = map(float, sys.argv[4:6])
first, count = int(warm_up * rate), int((warm_up + seconds) * rate)
properties = pika.BasicProperties(delivery_mode=2)
late = []


def consume(channel):
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, arrived, callback=lambda _: publish(channel, 0))


def due(number):
    return begun + number / rate


def publish(channel, number):
    global begun
    if number == 0:
        begun = time.monotonic()
    channel.basic_publish("", queue, str(number).ljust(size).encode(), properties)
    if number + 1 < count:
        wait = max(0, due(number + 1) - time.monotonic())
        connection.ioloop.call_later(wait, lambda: publish(channel, number + 1))


def arrived(channel, method, properties, body):
    late.append(time.monotonic() - due(int(body)))
    channel.basic_ack(method.delivery_tag)
    if len(late) == count:
        counted = sorted(late[first:])
        print(*(1000 * counted[int(len(counted) * part)] for part in (0.5, 0.99)))
        connection.close()


connection = pika.SelectConnection(
    pika.URLParameters(os.environ["AMQP_URL"]),
    on_open_callback=lambda connection: connection.channel(on_open_callback=consume),
    on_open_error_callback=lambda _, error: sys.exit(str(error)),
    on_close_callback=lambda connection, _: connection.ioloop.stop(),
)
connection.ioloop.start()
