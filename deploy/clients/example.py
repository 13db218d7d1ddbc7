#!/usr/bin/env python3
"""A queue whose jobs are done once each although a worker fails, and a topic that tells everybody.

    python3 deploy/clients/example.py [URL]
"""

import sys
import uuid

import chasqui


def work(url: str) -> None:
    """Publishes three jobs and does them; the second one fails at first."""
    client = chasqui.Client(url)
    client.register()
    jobs = client.queue(f"jobs-{uuid.uuid4()}")
    jobs.create(delivery_limit=5)
    for job in ("sweep", "wash", "cook"):
        jobs.publish({"job": job}, headers={"origin": "example"}, idempotency_key=f"today-{job}")
    # Published again under the same key, a message is published once.
    jobs.publish({"job": "cook"}, headers={"origin": "example"}, idempotency_key="today-cook")

    done = []
    while len(done) < 3:
        lent = jobs.lend(wait=10, lease=30)
        assert lent is not None, "a job is lost"
        try:
            with lent:
                job = lent.json()["job"]
                if job == "wash" and not lent.message.redelivered:
                    raise RuntimeError("no water")
                lent.extend(60)
                done.append(job)
                print(f"done: {job}")
        except RuntimeError as error:
            print(f"{job} is given back: {error}")
    assert jobs.take() is None, "a job was done twice"
    jobs.delete()
    client.delete_user()


def tell(url: str) -> None:
    """Publishes to a topic: a subscriber gets the message, its publisher does not."""
    writer, reader = chasqui.Client(url), chasqui.Client(url)
    writer.register()
    reader.register()
    news = writer.topic(f"news-{uuid.uuid4()}")
    news.create()
    heard = reader.topic(news.name)
    heard.subscribe()
    published = news.publish("Llueve en Bogotá")
    message = heard.take(wait=10)
    assert message is not None and message.id == published.id and published.receivers == 1
    assert news.take() is None
    print(f"heard: {message.text}")
    try:
        heard.delete()
    except chasqui.Refused as refused:
        assert refused.code == "not_creator", refused.code
        print(f"refused: {refused.code}")
    heard.unsubscribe()
    news.delete()


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
    work(url)
    tell(url)
