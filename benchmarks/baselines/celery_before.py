"""Flask, Celery and Redis, as a team writes it to answer fast: 200 first, enqueued in a thread.

celery -A celery_before:tasks worker --concurrency 8
granian --interface wsgi celery_before:app
"""

import hashlib
import hmac
import os
from concurrent.futures import ThreadPoolExecutor

import requests
from celery import Celery
from flask import Flask, request

SECRET = os.environ["SIGNING_SECRET"].encode()

app = Flask(__name__)
tasks = Celery("celery_before", broker=os.environ["REDIS_URL"])
background = ThreadPoolExecutor(4)


@tasks.task(autoretry_for=(requests.RequestException,), retry_backoff=True, max_retries=10)
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
    background.submit(deliver.delay, body.decode())
    return {"status": "accepted"}
