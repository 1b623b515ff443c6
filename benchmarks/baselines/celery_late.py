"""Flask, Celery and Redis with ``acks_late``: a task is done only when it has ended.

celery -A celery_late:tasks worker --concurrency 8
granian --interface wsgi celery_late:app
"""

import hashlib
import hmac
import os

import requests
from celery import Celery
from flask import Flask, request

SECRET = os.environ["SIGNING_SECRET"].encode()

app = Flask(__name__)
tasks = Celery("celery_late", broker=os.environ["REDIS_URL"])


@tasks.task(
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(requests.RequestException,),
    retry_backoff=True,
    max_retries=10,
)
def deliver(body: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = requests.post(os.environ["DELIVER_TO"], data=body, headers=headers, timeout=25)
    answer.raise_for_status()


@app.post("/webhooks/gofax")
def receive():
    body = request.get_data()
    expected = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("X-GoFax-Signature", "")):
        return {"error": "wrong signature"}, 401
    deliver.delay(body.decode())
    return {"status": "accepted"}
