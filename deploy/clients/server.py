#!/usr/bin/env python3
"""A server behind the aggregator, with pika: answers with what it was asked, tells everybody what somebody says."""
import argparse, json, os, random, sys, time
import pika

parser = argparse.ArgumentParser(description=__doc__, epilog="RabbitMQ is at $AMQP_URL.")
parser.add_argument("channel", nargs="?", default="chat")
parser.add_argument("--delay", type=float, default=0, help="seconds that the work takes [0]")
args = parser.parse_args()
parameters = pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/"))
done, attempts = {}, 0  # The latest requests with their answers: what comes again is answered again and not done twice.


def send(channel, key, message, **more):
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, app_id="server.py", **more)
    channel.basic_publish("OUTBOUND", key, json.dumps(message).encode(), properties)  # Returns once it is confirmed.


def work(channel, properties, message):
    """What the server is for. What it returns goes to the client if it is a request."""
    print("works on", json.dumps(message), flush=True)
    channel.connection.sleep(args.delay)  # With time.sleep the connection would be taken for dead.
    if properties.type != "request" and isinstance(message, dict) and "say" in message:
        told = {"said": message["say"], "client": (properties.headers or {}).get("client"), "server": os.getpid()}
        send(channel, f"{args.channel}.broadcast", told, type="publish")
    return {"echo": message, "server": os.getpid()}


def on_message(channel, method, properties, body):
    headers, now = properties.headers or {}, time.time() * 1000
    asked = (headers.get("client"), properties.correlation_id) if properties.type == "request" else None
    try:
        if asked and headers.get("deadline", now) < now:
            return channel.basic_ack(method.delivery_tag)  # Nobody waits for the answer any more.
        answer, error = done.get(asked) or (work(channel, properties, json.loads(body)), None)
    except (ValueError, LookupError, TypeError) as wrong:
        if not asked:
            return channel.basic_reject(method.delivery_tag, requeue=False)  # It becomes a dead letter.
        answer, error = None, {"error": str(wrong)}
    if asked:
        done[asked] = answer, error
        while len(done) > 10_000:
            del done[next(iter(done))]
        send(channel, properties.reply_to, answer, type="reply", correlation_id=asked[1], headers=error)
    channel.basic_ack(method.delivery_tag)


while True:
    try:
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_qos(prefetch_count=20)
            channel.basic_consume(f"IN_{args.channel.upper()}", on_message)
            attempts = 0
            channel.start_consuming()
    except (pika.exceptions.AMQPError, OSError) as error:  # Also before an aggregator has made the queue.
        wait, attempts = random.uniform(0.5, 1) * min(5, 0.1 * 2 ** min(attempts, 6)), attempts + 1
        print(f"server.py: {error!r}; it tries again in {wait:.1f} s", file=sys.stderr, flush=True)
        time.sleep(wait)
