"""Empties a queue of tasks one delivery after the other, with pika's BlockingConnection.

AMQP_URL=URL consumer.py QUEUE PREFETCH COUNT

Prints how many seconds passed from the first to the last of COUNT acknowledgements.
"""

import json
import os
import sys
import time

import pika

queue = sys.argv[1]
prefetch, count = map(int, sys.argv[2:4])
done = 0
first = last = 0.0


def handle(channel, method, properties, body):
    global done, first, last
    task = json.loads(body)
    if task["kind"] != "event":
        raise ValueError(task)
    channel.basic_ack(method.delivery_tag)
    done += 1
    if done == 1:
        first = time.monotonic()
    if done == count:
        last = time.monotonic()
        channel.stop_consuming()


connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.basic_qos(prefetch_count=prefetch)
channel.basic_consume(queue, handle)
channel.start_consuming()
# Answered after all acknowledgements have been read.
connection.close()
print(last - first)
